"""The loop with two actuators for a target that follows staleness itself: it acts on what that target does not bear."""

from __future__ import annotations

import math

from tuner.both import EXCESS, LOWEST_MOMENTUM, Both
from tuner.spread import Spread
from tuner.target import State

BEARS = 0.1  # parts of its own momentum's lag that the target bears of staleness; by measurement (docs/research.md)
GIVES = 0.57  # parts of the whole way to the least momentum in which staleness counts less and less; by measurement
TURNED = 0.065  # the excess that is borne where the rule turns all gradients into an eigenbasis; by measurement
FIRST, LOWEST = 0.5, 0.2  # f starts at this part of D w, and is at least that of w, once momentum has been used up


class Beyond(Both):
    """μ and α from the target's μ* and α, given what staleness does beyond what the target bears.

    The learning rate of `LearntDistance` already comes out smaller where gradients are stale, and its momentum was
    chosen with a lag of its own, L = μ*/(1 − μ*). A mean staleness of a tenth of that is left alone. What the running
    mean of τ has above it is taken off the momentum's lag l = μ/(1 − μ), at first all of it and then less and less,

        l = L − c ln(1 + max(0, E[τ] − 0.1 L)/c),   c = 0.57 (L + 3/13),   μ at least −0.3 and the clamp's lower end,

    where −3/13 is the lag of −0.3. The learning rate gives way in the measure that momentum has: with s between 0 and
    1, (μ* − μ)/(μ* − least μ),

        (0.2 w)^s ≤ f ≤ 1,   at first f = (0.5 D w)^s,

    where w, f and what moves it are those of `Both`, and D is the `Spread` of delays, 1 for workers in turn and 3 for
    sixteen without order. At μ* = 0.8 nothing at all is changed up to a mean staleness of 0.4; two, four and eight
    workers in turn have μ = 0.78, 0.69 and 0.45, and thirteen have used it up.

    turned: how much of the parameters have gradients that the rule turns into an eigenbasis. There the excess of
    neighbouring coordinates is alike, and 0.065 of it is as much as 0.25 elsewhere: what is borne lies between the two.
    """

    _LOWEST = LOWEST

    def __init__(self, momentum_min: float, momentum_max: float, turned: float = 0.0) -> None:
        super().__init__(momentum_min, momentum_max)
        self.borne = EXCESS + (TURNED - EXCESS) * turned
        self._spread = Spread()

    def weigh(self, staleness: int, excess: float | None) -> None:
        """Take the staleness of a push, and e if it was measured."""
        self._spread.update(staleness)
        super().weigh(staleness, excess)

    def _wanted(self, target: float) -> float:
        own = max(0.0, target / (1.0 - target))
        above = self._stale.value - BEARS * own
        if above <= 0.0:
            return target
        lag = target / (1.0 - target)
        whole = GIVES * (lag - LOWEST_MOMENTUM / (1.0 - LOWEST_MOMENTUM))
        if whole <= 0.0:
            return -math.inf
        lag -= whole * math.log1p(above / whole)
        return lag / (1.0 + lag) if lag > -1.0 else -math.inf

    def _part(self) -> float:
        return FIRST * self._spread.value

    def _used(self, target: float, wanted: float) -> float:
        if wanted >= target:
            return 0.0
        return 1.0 if wanted <= self._min else (target - wanted) / (target - self._min)

    def state_dict(self) -> State:
        """As of `Both`, and D's."""
        return {**super().state_dict(), "spread": self._spread.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer; D is found anew where it has none."""
        super().load_state_dict(state)
        if "spread" in state:
            self._spread.load_state_dict(state["spread"])
