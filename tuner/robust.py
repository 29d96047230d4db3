"""What keeps YellowFin's learning rate in hand: a limit on its gain, and a unit for its curvature. Scalars only.

YellowFin takes ‖g‖² for curvature. Two faults follow. As gradients vanish, α = (1 − √μ)²/h_min grows without end, and
so does κ = h_max/h_min. And ‖g‖² is not of curvature's dimension, loss over distance squared: with the loss multiplied
by c, α is divided by c² where only 1/c leaves the trajectory alone.
"""

from __future__ import annotations

import math

from tuner.target import State

UNIT = 4.0  # loss for which α is YellowFin's own: cross-entropy over some fifty classes at the beginning
LARGEST_RATE = 1e30  # inside float32


class GainLimit:
    """Holds the gain α/(1 − μ), the whole way that one gradient moves the parameters, to its own geometric mean.

    The mean is over all updates so far, so the gain falls freely and never rises above what was tried; it begins to
    bind after `free` updates. Where it binds α stays and μ falls, 1 − μ = α/G for the mean G, and only below μ = 0
    α = G. With κ large, where α ≈ 4/h_max and α/(1 − μ) ≈ 1/√(h_min h_max), that is what a larger h_min would give.

    The gain and not α, because the gain is what decides: on the digits, one worker, a gain of 0.5 learns with momenta
    from 0.5 to 0.98, and a gain of 1 collapses with all of them (docs/estimators.md).
    """

    def __init__(self, free: int) -> None:
        self._free = free
        self._logs = 0.0
        self._count = 0

    def limit(self, alpha: float, mu: float) -> tuple[float, float]:
        """α and μ of one update, held to the limit if need be."""
        if not alpha > 0.0:
            return alpha, mu
        rest = 1.0 - mu
        if self._count >= self._free:
            mean = math.exp(self._logs / self._count)
            if alpha > mean * rest:
                rest = min(1.0, alpha / mean)
                alpha, mu = min(alpha, mean), 1.0 - rest
        if rest > 0.0:
            self._logs += math.log(alpha) - math.log(rest)
            self._count += 1
        return alpha, mu

    def state_dict(self) -> State:
        """Sum of the logarithms, and how many there are."""
        return {"logs": self._logs, "count": self._count}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._logs, self._count = float(state["logs"]), int(state["count"])


class LossUnit:
    """The loss that α is measured by: mean |loss| of the first `window` gradients, divided by 4.

    α of YellowFin times this unit is scale-free. Without losses the unit stays 1, and is YellowFin's.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._total = 0.0
        self._count = 0
        self._seen = 0

    def take(self, loss: float | None) -> float:
        """The loss of one more gradient, None if it is not known; returns the unit."""
        if self._seen < self._window:
            self._seen += 1
            if loss is not None and 0.0 < abs(loss) < math.inf:
                self._total += abs(loss)
                self._count += 1
        return self._total / (UNIT * self._count) if self._count else 1.0

    def state_dict(self) -> State:
        """The sum, of how many, and how many gradients there were."""
        return {"total": self._total, "count": self._count, "seen": self._seen}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._total, self._count, self._seen = float(state["total"]), int(state["count"]), int(state["seen"])
