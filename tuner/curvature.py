"""The curvature range as workers measured it by back-propagation, in place of the one guessed from gradient norms."""

from __future__ import annotations

import math
from collections import deque

from tuner.averages import Average, LogAverage
from tuner.target import State

RECENT = 10  # measurements whose largest h_max counts at once: an average comes too late where curvature grows
LOWEST = 1e-6  # the mean curvature counts as at least this part of the largest


class MeasuredCurvature:
    """h_max and h_min from Hessian-vector products, averaged over time.

    h_max is the largest magnitude among the Hessian's eigenvalues, averaged in the log domain, but never below any of
    the last ten: curvature grows quickly at the start, and batches differ. h_min is the mean of the diagonal: most
    eigenvalues of a network are nearly 0, and their minimum would say nothing. Measured by one random vector, that
    mean comes out with much noise and often negative, but right on average, so it is averaged as it is. Both are of
    one batch.

    beta: decay an update; every: updates between two measurements, so that the averages forget by the update as
    YellowFin's others do.
    """

    def __init__(self, beta: float, every: int) -> None:
        decay = beta**every
        self._max, self._mean = LogAverage(decay), Average(decay)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._looked: tuple[float, float] | None = None

    def look(self, h_max: float, h_mean: float) -> None:
        """Take a measurement, which counts once `accept` is called; an h_max of 0 is none."""
        self._looked = (h_max, h_mean) if 0.0 < h_max < math.inf and math.isfinite(h_mean) else None

    def accept(self) -> None:
        """The gradient that came with the measurement is good."""
        if self._looked is not None:
            h_max, h_mean = self._looked
            self._recent.append(h_max)
            self._max.update(h_max)
            self._mean.update(h_mean)
        self._looked = None

    def drop(self) -> None:
        """The gradient that came with the measurement is not."""
        self._looked = None

    @property
    def known(self) -> bool:
        """Whether there was a measurement yet."""
        return not self._max.empty

    @property
    def h_min(self) -> float:
        """Averaged mean of the diagonal, at least a millionth of h_max and at most h_max; 0 while unknown."""
        return max(min(self._mean.value, self.h_max), LOWEST * self.h_max)

    @property
    def h_max(self) -> float:
        """Largest magnitude, of the average and of the recent ones; 0 while unknown."""
        return max(self._max.value, *self._recent) if self._recent else 0.0

    def state_dict(self) -> State:
        """Both averages and the recent h_max, oldest first."""
        return {"recent": list(self._recent), "mean": self._mean.state_dict(), "max": self._max.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._looked = None
        self._recent.clear()
        self._recent.extend(float(h) for h in state["recent"])
        self._mean.load_state_dict(state["mean"])
        self._max.load_state_dict(state["max"])
