"""The loop with two actuators for a target that follows staleness itself: it acts on what that target does not bear."""

from __future__ import annotations

import math

from tuner.both import Both

BEARS = 1.0  # parts of its own momentum's lag that the target bears of staleness; by measurement (docs/research.md)
FIRST, LOWEST = 0.5, 0.2  # f starts at this part of w, and is at least that part, once momentum has been used up


class Beyond(Both):
    """μ and α from the target's μ* and α, given what staleness does beyond what the target bears.

    The learning rate of `LearntDistance` already comes out smaller where gradients are stale, and its momentum was
    chosen with a lag of its own, L = μ*/(1 − μ*). A mean staleness of as much again is left alone. What the running
    mean of τ has above that is taken off the momentum's lag l = μ/(1 − μ),

        l = L − max(0, E[τ] − L),   μ at least −0.3 and the clamp's lower end,

    and the learning rate gives way in the measure that momentum has: with s = (μ* − μ)/(μ* − least μ), between 0 and 1,

        (0.2 w)^s ≤ f ≤ 1,   at first f = (0.5 w)^s,

    where w, f and what moves it are those of `Both`. So up to L nothing at all is changed (five workers at μ* = 0.8),
    from 2L + 0.23 on momentum is used up (ten workers), and between them no step is taken at once.
    """

    _FIRST, _LOWEST = FIRST, LOWEST

    def _wanted(self, target: float) -> float:
        own = max(0.0, target / (1.0 - target))
        above = self._stale.value - BEARS * own
        if above <= 0.0:
            return target
        lag = target / (1.0 - target) - above
        return lag / (1.0 + lag) if lag > -1.0 else -math.inf

    def _used(self, target: float, wanted: float) -> float:
        if wanted >= target:
            return 0.0
        return 1.0 if wanted <= self._min else (target - wanted) / (target - self._min)
