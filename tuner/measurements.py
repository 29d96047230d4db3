"""What YellowFin measures on gradients: curvature range, gradient variance, distance to the optimum. Scalars only."""

from __future__ import annotations

import math
from collections import deque

from tuner.averages import Average, LogAverage
from tuner.target import State

CURVATURE_FLOOR = 1e-30  # keeps α = (1 − √μ)²/h_min inside float32
CURVATURE_LIFT = 100.0  # most that one gradient may exceed h_max by in the window
VARIANCE_FLOOR = 1e-6  # C is at least this part of EMA(‖g‖²): below it, rounding of e would decide
SMALLEST = 1e-300  # keeps C above 0 when even EMA(‖g‖²) has died away


class CurvatureRange:
    """h_min and h_max: extremes of h_t = ‖g_t‖² over a window, each averaged in the log domain.

    h_t enters unclipped, but at most 100 times the h_max before it and at least 1e-30. A gradient of exactly zero says
    nothing about curvature and leaves the range alone (one would otherwise pull h_min down by many orders).

    both_ways: instead of 1e-30, which is not scale-free, the floor is a hundredth of the h_min before.
    """

    def __init__(self, beta: float, window: int, *, both_ways: bool = False) -> None:
        self._both_ways = both_ways
        self._window: deque[float] = deque(maxlen=window)
        self._min, self._max = LogAverage(beta), LogAverage(beta)

    def update(self, h: float) -> None:
        """Take ‖g‖² of one more gradient."""
        if h == 0.0:
            return
        limit = CURVATURE_LIFT * self._max.value if self.known else math.inf
        floor = max(self._min.value / CURVATURE_LIFT, SMALLEST) if self._both_ways else CURVATURE_FLOOR
        self._window.append(max(min(h, limit), floor))
        self._min.update(min(self._window))
        self._max.update(max(self._window))

    @property
    def known(self) -> bool:
        """Whether a gradient other than zero came yet."""
        return not self._max.empty

    @property
    def h_min(self) -> float:
        """Averaged minimum; 0 while unknown."""
        return self._min.value

    @property
    def h_max(self) -> float:
        """Averaged maximum, never below h_min; 0 while unknown."""
        return max(self._max.value, self._min.value)

    def state_dict(self) -> State:
        """The window, oldest first, and both averages."""
        return {"window": list(self._window), "min": self._min.state_dict(), "max": self._max.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._window.clear()
        self._window.extend(float(h) for h in state["window"])
        self._min.load_state_dict(state["min"])
        self._max.load_state_dict(state["max"])


class GradientVariance:
    """C = EMA(‖g‖²) − ‖EMA(g)‖², at least 1e-6 EMA(‖g‖²); needs of the vector e = EMA(g) only ⟨e, g⟩.

    ‖e‖² follows the recurrence `‖e′‖² = β²‖e‖² + 2β(1−β)⟨e, g⟩ + (1−β)²‖g‖²` in double. Errors in it fade like
    β²ᵗ, as fast as e itself forgets, so it never needs to be summed afresh.
    """

    def __init__(self, beta: float) -> None:
        self._beta = beta
        self._mean_square = 0.0
        self._square = Average(beta)

    def update(self, squares: float, products: float) -> None:
        """Take ‖g‖² and ⟨e, g⟩ of one more gradient, with e as it was before it."""
        beta, rest = self._beta, 1.0 - self._beta
        e2 = beta * beta * self._mean_square + 2.0 * beta * rest * products + rest * rest * squares
        self._mean_square = max(e2, 0.0)
        self._square.update(squares)

    @property
    def mean_square(self) -> float:
        """EMA(‖g‖²), zero-debiased."""
        return self._square.value

    @property
    def value(self) -> float:
        """C, above 0."""
        weight = self._square.weight
        mean = self._mean_square / (weight * weight) if weight else 0.0
        return max(self.mean_square - mean, VARIANCE_FLOOR * self.mean_square, SMALLEST)

    def state_dict(self) -> State:
        """‖e‖² before debiasing, and the average of ‖g‖²."""
        return {"mean_square": self._mean_square, "square": self._square.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._mean_square = float(state["mean_square"])
        self._square.load_state_dict(state["square"])


class Distance:
    """D = EMA( EMA(‖g‖) / EMA(‖g‖²) ); gradients before the first one that is not zero add nothing to the outer EMA."""

    def __init__(self, beta: float) -> None:
        self._norm = Average(beta)
        self._ratio = Average(beta)

    def update(self, norm: float, mean_square: float) -> None:
        """Take ‖g‖ of one more gradient and the EMA(‖g‖²) that includes it."""
        self._norm.update(norm)
        if mean_square > SMALLEST:
            self._ratio.update(self._norm.value / mean_square)

    @property
    def value(self) -> float:
        """D, at least 0."""
        return self._ratio.value

    def state_dict(self) -> State:
        """Both averages."""
        return {"norm": self._norm.state_dict(), "ratio": self._ratio.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._norm.load_state_dict(state["norm"])
        self._ratio.load_state_dict(state["ratio"])
