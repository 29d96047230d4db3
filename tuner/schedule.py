"""Scheduled targets: the learning rate as a function of the update, with linear warm-up; constant momentum."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from tuner.constant import Constant


def warm_up(t: int, warmup: int) -> float:
    """`min(1, (t+1)/warmup)`: rises linearly and is 1 from update `warmup − 1` on; always 1 for warmup = 0."""
    return 1.0 if t >= warmup else (t + 1) / warmup


class Step(Constant):
    """`α_t = α · decay^(milestones ≤ t)`, times the warm-up."""

    def __init__(
        self, learning_rate: float, momentum: float, *, milestones: Sequence[int], decay: float, warmup: int = 0
    ) -> None:
        super().__init__(learning_rate, momentum)
        self._milestones, self._decay, self._warmup = tuple(milestones), decay, warmup

    def rate(self, t: int) -> float:
        """Learning rate of update number t, from 0."""
        passed = bisect_right(self._milestones, t)
        return self._learning_rate * self._decay**passed * warm_up(t, self._warmup)


class Cosine(Constant):
    """Linear warm-up, then `α_t = α (1 + cos(π (t − warmup)/(updates − warmup)))/2`: 0 after the last update."""

    def __init__(self, learning_rate: float, momentum: float, *, updates: int, warmup: int = 0) -> None:
        super().__init__(learning_rate, momentum)
        self._updates, self._warmup = updates, warmup

    def rate(self, t: int) -> float:
        """Learning rate of update number t, from 0."""
        if t < self._warmup:
            return self._learning_rate * warm_up(t, self._warmup)
        done = min(1.0, (t - self._warmup) / max(1, self._updates - self._warmup))
        return self._learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
