"""The loop with two actuators for a target that follows staleness itself: it acts on what that target does not bear."""

from __future__ import annotations

import math

from tuner.both import EXCESS, LOWEST_MOMENTUM, Both
from tuner.loop import Pull
from tuner.spread import Spread
from tuner.target import State

BEARS = 1.0  # parts of its own momentum's lag that the target bears of staleness; by measurement (docs/research.md)
GIVES = 0.85  # parts of the whole way to the least momentum in which staleness counts less and less; by measurement
TURNED = 0.065  # the excess that is borne where the rule turns all gradients into an eigenbasis; by measurement
FIRST, LOWEST = 0.5, 0.2  # f starts at this part of w, and is at least that of w, once momentum has been used up
ORDERED, SPREAD = 1.15, 1.35  # D up to which f has all of its range, and from which none; by measurement
UNTURNED = 1.5  # how many times as large both are where nothing is turned; by measurement
PULL, MOST = 0.15, 0.4  # of the way since x_v that is taken back, in the mean times E[τ], and at most; by measurement
FARTHEST = 8.0  # times E[τ]: staler gradients take no more back than those
MEMORY = 0.995  # decay of the means that D is of: what it does to f is too much to be left to chance


class Beyond(Both):
    """μ and α from the target's μ* and α, given what staleness does beyond what the target bears.

    The learning rate of `LearntDistance` already comes out smaller where gradients are stale, and its momentum was
    chosen with a lag of its own, L = μ*/(1 − μ*). A mean staleness of as much is left alone. What the running mean of τ
    has above it is taken off the momentum's lag l = μ/(1 − μ), at first all of it and then less and less,

        l = L − c ln(1 + max(0, E[τ] − L)/c),   c = 0.85 (L + 3/13),   μ at least −0.3 and the clamp's lower end,

    where −3/13 is the lag of −0.3. The learning rate gives way in the measure that momentum has, and as far as
    gradients come in order: with s = clip((1.35 − D)/0.2, 0, 1) (μ* − μ)/(μ* − least μ), between 0 and 1,

        (0.2 w)^s ≤ f ≤ 1,   at first f = (0.5 w)^s,

    where w, f and what moves it are those of `Both`, and D is the `Spread` of delays, 1 for workers in turn and 3 for
    sixteen without order, whose learning rate is left alone: a constant delay resonates, one that is spread does not.
    At μ* = 0.8 neither is changed up to a mean staleness of 4, so with two to five workers; eight in turn have
    μ = 0.65, and fourteen have used it up.

    Where f is left alone, and as far as it is, some of the way since x_v is taken back (see `psserver.soap`), from two
    workers on: c = 0.15 (1 − s)/max(1, E[τ]) of it in the mean over directions, at most 0.4 along any; both times
    min(1, 8 E[τ]/τ), for a gradient from long ago must not undo all that has been done since. Here D is not divided,
    for what is not turned is not pulled, and gradients of x_0 count for nothing.

    turned: how much of the parameters have gradients that the rule turns into an eigenbasis. There the excess of
    neighbouring coordinates is alike, and 0.065 of it is as much as 0.25 elsewhere: what is borne lies between the two.
    There, too, what oscillates has larger second moments, and steps shorter by itself: elsewhere D counts as D/1.5.
    """

    _LOWEST = LOWEST

    def __init__(self, momentum_min: float, momentum_max: float, turned: float = 0.0) -> None:
        super().__init__(momentum_min, momentum_max)
        self.borne = EXCESS + (TURNED - EXCESS) * turned
        self._counts = 1.0 / (UNTURNED + (1.0 - UNTURNED) * turned)
        self._spread = Spread(MEMORY)
        self._target = 0.0

    def pull(self, staleness: int) -> Pull | None:
        """c and 0.4, both less where τ is beyond 8 E[τ]; None where f has all of its range."""
        stale = self._spread.stale
        if staleness == 0 or stale is None:
            return None
        given = self._given(self._target, min(self._target, self._beyond(self._target, stale)))
        part, mean = PULL * (1.0 - given * _order(self._spread.value)), max(1.0, stale)
        if part == 0.0:
            return None
        share = min(1.0, FARTHEST * mean / staleness)
        return Pull(share * part / mean, share * MOST)

    def momentum(self, target: float) -> float:
        """μ to apply now; the target's own where nothing is stale."""
        self._target = target
        return super().momentum(target)

    def weigh(self, staleness: int, excess: float | None) -> None:
        """Take the staleness of a push, and e if it was measured."""
        self._spread.update(staleness)
        super().weigh(staleness, excess)

    def _wanted(self, target: float) -> float:
        return self._beyond(target, self._stale.value)

    def _beyond(self, target: float, stale: float) -> float:
        """The μ that a mean staleness asks for, minus infinity where none does."""
        own = max(0.0, target / (1.0 - target))
        above = stale - BEARS * own
        if above <= 0.0:
            return target
        lag = target / (1.0 - target)
        whole = GIVES * (lag - LOWEST_MOMENTUM / (1.0 - LOWEST_MOMENTUM))
        if whole <= 0.0:
            return -math.inf
        lag -= whole * math.log1p(above / whole)
        return lag / (1.0 + lag) if lag > -1.0 else -math.inf

    def _part(self) -> float:
        return FIRST

    def _used(self, target: float, wanted: float) -> float:
        given = self._given(target, wanted)
        return given * _order(self._counts * self._spread.value) if given else 0.0

    def _given(self, target: float, wanted: float) -> float:
        """How much of its range the momentum has given."""
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


def _order(spread: float) -> float:
    """1 for gradients in order, 0 for those without, by D."""
    return min(max((SPREAD - spread) / (SPREAD - ORDERED), 0.0), 1.0)
