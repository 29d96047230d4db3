"""The loop with two actuators: momentum gives way to the lag that staleness adds, learning rate to what is measured.

Derived in docs/research.md. Momentum alone cannot make up for a mean staleness above the target's own lag μ*/(1 − μ*),
so beyond it the learning rate must fall; how far depends on curvature, which shows in the total momentum.
"""

from __future__ import annotations

import math

from tuner.averages import Tracked
from tuner.dead_time import BORNE, haste
from tuner.loop import Clamp, Pull
from tuner.target import State

MEMORY, QUICK = 0.98, 0.9  # decays of the averages of τ, τ² and 1/(1 + τ), and of those that tell a change
EXCESS = 0.25  # of measured over applied momentum that is borne; by measurement (docs/research.md)
SPEED = 0.12  # of ln f against the excess
FASTEST_DOWN, FASTEST_UP = 0.1, 0.05  # most that ln f moves in an update, up times `haste`
LOWEST = 0.3  # f is at least this part of w
LOWEST_MOMENTUM = -0.3  # μ = −1 would take half a step off the lag and ring; −0.3 takes a quarter of one off


class Both:
    """μ and α from the target's μ* and α, given what staleness does.

    A gradient acts late by its staleness τ and then, at momentum μ = l/(1 + l), by a geometric delay of mean l. The
    target's own momentum μ* delays by L = μ*/(1 − μ*) on average and by L + 2L² in mean square. μ is chosen for the
    whole to have that mean square, with running means of τ and τ²,

        E[τ²] + 2 l E[τ] + l + 2 l² = L + 2 L²,   at least −0.3 and the clamp's lower end

    (matching the mean instead takes too much where staleness is small). The learning rate is f α, f ≤ 1,
    with w the running mean of 1/(1 + τ) (1 without staleness, 1/M for M workers in turn, ln M/(M − 1) for M without
    order) and

        ln f ← ln f + clip(0.12 (0.25 − e), −0.1, 0.05 q),   0.3 w ≤ f ≤ 1,   at first f = w,

    where e is the excess that was measured (`TotalMomentum.excess`), α h τ for slow motion (of a stale gradient alone;
    where nothing is stale f = 1), and q = min(1, (20/(1 + E[τ]))^1.5), see `tuner.dead_time`. So staleness that
    curvature does not feel costs no learning rate, and where it is felt f falls until it is borne. `floor`, from the
    target, is a learning rate that staleness alone does not lower: α is at least min(1, 20 w) min(1, f/w) times it, so
    up to twenty workers in turn.

    Anti-windup: f/w is held where it has an effect, so it leaves either end with the first error of the other sign;
    momentum follows the staleness alone, so the two never work against each other.

    That is for a recipe that knows nothing of staleness; `Beyond` is for a target that does.
    """

    _LOWEST = LOWEST

    def __init__(self, momentum_min: float, momentum_max: float) -> None:
        self._min, self._max = max(momentum_min, LOWEST_MOMENTUM), momentum_max
        self._fresh, self._stale, self._square = (Tracked(MEMORY, QUICK) for _ in range(3))
        self._share = self._used(0.0, 0.0)
        self._log = 0.0  # ln(f/first)
        self.borne = EXCESS
        self.clamped: Clamp | None = None

    @property
    def freshness(self) -> float:
        """w, in (0, 1]."""
        return 1.0 if self._fresh.empty else self._fresh.value

    @property
    def share(self) -> float:
        """s, in [0, 1]: how much of the learning rate's range is in use; 1 but in `Beyond`."""
        return self._share

    @property
    def first(self) -> float:
        """Where f starts, in (0, 1]."""
        return 1.0 if self._share == 0.0 else float(min(1.0, self._part() * self.freshness) ** self._share)

    @property
    def factor(self) -> float:
        """f, in (0, 1]."""
        return min(1.0, self.first * math.exp(self._log))

    def momentum(self, target: float) -> float:
        """μ to apply now; the target's own where nothing is stale."""
        if self._square.value <= 0.0:
            self.clamped, self._share = None, self._used(target, target)
            return target
        wanted = min(target, self._wanted(target))
        self._share = self._used(target, wanted)
        self.clamped = "low" if wanted < self._min else "high" if wanted > self._max else None
        return min(max(wanted, self._min), self._max)

    def _wanted(self, target: float) -> float:
        return _momentum(target, self._stale.value, self._square.value)

    def _used(self, target: float, wanted: float) -> float:
        """s, where staleness asks for the momentum `wanted`."""
        return 1.0

    def _part(self) -> float:
        """At which part of w f starts, once momentum has been used up."""
        return 1.0

    def rate(self, learning_rate: float, floor: float) -> float:
        """α to apply now."""
        least = floor * min(1.0, BORNE * self.freshness)
        return max(learning_rate * self.factor, least * math.exp(min(0.0, self._log)))

    def pull(self, staleness: int) -> Pull | None:
        """Nothing, but in `Beyond`."""
        return None

    def observe(self, target: float, measured: float | None) -> None:
        """Nothing: `weigh` has the excess."""

    def weigh(self, staleness: int, excess: float | None) -> None:
        """Take the staleness of a push, and e if it was measured."""
        self._fresh.update(1.0 / (1.0 + staleness))
        self._stale.update(float(staleness))
        self._square.update(float(staleness) ** 2)
        if staleness and excess is not None and math.isfinite(excess):
            up = FASTEST_UP * haste(self._stale.value)
            self._log += min(max(SPEED * (self.borne - excess), -FASTEST_DOWN), up)
        lowest = self._share * math.log(self._LOWEST / self._part())
        self._log = min(max(self._log, lowest), -math.log(self.first))

    def state_dict(self) -> State:
        """The averages, s and ln(f/first)."""
        averages = {"fresh": self._fresh, "stale": self._stale, "square": self._square}
        return {
            **{name: average.state_dict() for name, average in averages.items()},
            "share": self._share,
            "log": self._log,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._fresh.load_state_dict(state["fresh"])
        self._stale.load_state_dict(state["stale"])
        self._square.load_state_dict(state["square"])
        self._share = float(state.get("share", 1.0))
        self._log = float(state["log"])


def _momentum(target: float, stale: float, square: float) -> float:
    """The μ whose delay, added to staleness of these first two moments, has the mean square of the target's own.

    Below −1, minus infinity, where staleness alone has more.
    """
    own = target / (1.0 - target)
    slope, missing = 1.0 + 2.0 * stale, square - own - 2.0 * own * own
    root = slope * slope - 8.0 * missing
    lag = (math.sqrt(root) - slope) / 4.0 if root >= 0.0 else -math.inf
    return lag / (1.0 + lag) if lag > -1.0 else -math.inf
