"""How much sooner gradients tell than from as many workers in turn."""

from __future__ import annotations

from tuner.averages import Tracked
from tuner.target import State

MEMORY, QUICK = 0.98, 0.9  # decays, as of the loop's own averages


class Spread:
    """D = min(w (1 + E[τ]), 1/w), at least 1, with w the running mean of 1/(1 + τ).

    The mean of 1 + τ is M, the number of workers, in whatever order they push; its harmonic mean, 1/w, is as large only
    where all wait alike. So D is 1 for workers in turn, and M ln M/(M − 1) for M without order: 1.8 for four, 3 for
    sixteen. Where nearly all gradients are fresh it is near 1 again, as there is nothing to be made up for.

    Gradients of x_0 are left out: they are as stale as there are updates, and tell nothing of an order.

    memory: decay of the means, which follow a change sooner than that, see `Tracked`.
    """

    def __init__(self, memory: float = MEMORY) -> None:
        self._fresh, self._stale = Tracked(memory, QUICK), Tracked(memory, QUICK)
        self._count = 0

    def update(self, staleness: int) -> float:
        """Take the staleness of the next gradient; returns the new D."""
        if staleness < self._count:
            self._fresh.update(1.0 / (1.0 + staleness))
            self._stale.update(float(staleness))
        self._count += 1
        return self.value

    @property
    def freshness(self) -> float:
        """w, in (0, 1]; 1 before anything is known."""
        return 1.0 if self._fresh.empty else self._fresh.value

    @property
    def stale(self) -> float | None:
        """E[τ]; None before anything is known."""
        return None if self._stale.empty else self._stale.value

    @property
    def round(self) -> float:
        """(1 + E[τ])/D: how many gradients come before the first that was computed after the one now applied."""
        return (1.0 + self._stale.value) / self.value

    @property
    def value(self) -> float:
        """D, in [1, M]; 1 before anything is known."""
        if self._fresh.empty:
            return 1.0
        return max(1.0, min(self._fresh.value * (1.0 + self._stale.value), 1.0 / self._fresh.value))

    def state_dict(self) -> State:
        """Both averages and how many gradients there were."""
        return {"fresh": self._fresh.state_dict(), "stale": self._stale.state_dict(), "count": self._count}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._fresh.load_state_dict(state["fresh"])
        self._stale.load_state_dict(state["stale"])
        self._count = int(state["count"])
