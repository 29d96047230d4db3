"""The first updates: as much of the learning rate as is seen to do no harm."""

from __future__ import annotations

import math

from tuner.averages import Average
from tuner.spread import Spread
from tuner.target import State

LINEAR, STALE = 40, 20  # updates it takes, without and with stale gradients
MOST = 0.1  # how much of a short run these may be
ROUNDS = 2.5  # gradients that it takes at least where none is stale
FIRST = 0.3  # the part that stale gradients begin with; by measurement, as all of these (docs/research.md)
HOLD = 0.5  # rounds of gradients that must tell before it moves, within the two that follow
FEWEST, ENOUGH = 4, 8  # gradients
RISE, AGAIN = 0.35, 3.0  # rounds that it takes to rise from there, at least, and once it has fallen
MEMORY = 0.7  # decay of the means of what they tell
DOUBT = 2.0  # standard errors by which the mean must be below 0 for the part to fall
FALL, LEAST = 0.7, 0.1  # what it falls by with each gradient then, and how far at most, unless w is more


class WarmUp:
    """The part p of the learning rate that an update gets: 1 once the warm-up is over, which it then is for good.

    As long as nothing is stale it is min(1, (t + 1)/W) at update t, W = min(40, T/10) and at least 2.5, T the run's
    updates.

    Where gradients are stale a line is blind: of what an update does the first is known a round later, R = (1 + E[τ])/D
    gradients with D the `Spread` of delays. By then sixteen workers in turn have taken as many steps by gradients of
    x_0 alone, and if the first step was too long, as it is for a network that was trained before, all are. Whether the
    way from x_0 to x_v still goes down is in the cosine c of the gradient g at x_v and x_0 − x_v, above 0 if it does.
    So p is 0.3 until H = R/2 gradients that are not of x_0, at least four and at most eight, have told; then, with each
    one,

        p ← max(0.7 p, w, 0.1)       where the mean of c is below 0 by two standard errors,
        p ← min(1, 0.3^(−1/U) p)     where it is above 0,   U = max(min(20/D, T/10) − R − H, 0.35 R),

    and stays in between, means forgetting with 0.7, w the mean of 1/(1 + τ). Once it has fallen, U is at least 3 R, for
    what was too long may be too long still. It is over when a round of gradients has told nothing against p = 1.
    """

    def __init__(self, updates: int, spread: Spread) -> None:
        self._updates, self._spread = updates, spread
        self._count = self._told = self._since = 0
        self._stale = self._fell = self.over = False
        self._part = 0.0
        self._cosine, self._square = Average(MEMORY), Average(MEMORY)

    def update(self, staleness: int, cosine: float | None) -> float:
        """Take the next gradient's staleness and c, None where it is of x_0 or 0; returns p, in (0, 1].

        Its staleness must be known to the `Spread` already.
        """
        self._count += 1
        self._stale = self._stale or staleness > 0
        if self.over:
            return 1.0
        if not self._stale:
            self._part = linear(self._count - 1, self._updates)
            self.over = self._part == 1.0
            return self._part
        self._part = self._part if self._told else max(self._part, FIRST)
        if cosine is not None:
            self._tell(cosine)
        return self._part

    def _tell(self, cosine: float) -> None:
        self._told += 1
        mean = self._cosine.update(cosine)
        variance = max(0.0, self._square.update(cosine * cosine) - mean * mean)
        error = math.sqrt(variance * (1.0 - MEMORY) / self._cosine.weight)
        spread, a_round = self._spread.value, self._spread.round
        held = min(max(HOLD * a_round, FEWEST - 1.0), ENOUGH)
        if self._told <= held:
            return
        self._since = self._since + 1 if self._part == 1.0 else 0
        if mean < -DOUBT * error:
            self._fell, self._part = True, max(FALL * self._part, self._spread.freshness, LEAST)
        elif mean > 0.0:
            least = (AGAIN if self._fell else RISE) * a_round
            steps = max(min(STALE / spread, MOST * self._updates) - a_round - held, least)
            self._part = min(1.0, self._part * FIRST ** (-1.0 / steps))
        self.over = self._part == 1.0 and self._since > a_round

    def state_dict(self) -> State:
        """All that it has been told."""
        return {
            "count": self._count,
            "told": self._told,
            "since": self._since,
            "stale": self._stale,
            "fell": self._fell,
            "over": self.over,
            "part": self._part,
            "cosine": self._cosine.state_dict(),
            "square": self._square.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._count, self._told, self._since = int(state["count"]), int(state["told"]), int(state["since"])
        self._stale, self._fell, self.over = bool(state["stale"]), bool(state.get("fell", False)), bool(state["over"])
        self._part = float(state["part"])
        self._cosine.load_state_dict(state["cosine"])
        self._square.load_state_dict(state["square"])

    def begun_before(self, count: int) -> None:
        """Continue a run of `count` updates that was saved when there was no such thing."""
        self._count, self.over = count, count >= LINEAR


def linear(t: int, updates: int) -> float:
    """`min(1, (t + 1)/W)`, W = min(40, T/10) and at least 2.5, at update number t of T, from 0, where none is stale."""
    return float(min(1.0, (t + 1) / max(min(LINEAR, MOST * updates), ROUNDS)))
