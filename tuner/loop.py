"""The loop between target momentum and the momentum the update applies: open, or closed by measurement.

Source: Zhang and Mitliagkas (2019), closed-loop momentum control; total momentum after Mitliagkas et al. (2016).
"""

from __future__ import annotations

from typing import Literal, Protocol

from tuner.target import State

Clamp = Literal["low", "high"]


class Loop(Protocol):
    """Turns target momentum μ* and measured total momentum μ̂_T into the momentum μ to apply."""

    clamped: Clamp | None
    """At which end the clamp held μ back at the last observation."""

    def momentum(self, target: float) -> float:
        """μ to apply now."""

    def rate(self, learning_rate: float, floor: float) -> float:
        """α to apply now, where the target chose `learning_rate`; floor: see `Decision`."""

    @property
    def pull(self) -> float:
        """c, at least 0: how much of the way since x_v is taken back now; see `Settings`."""

    def observe(self, target: float, measured: float | None) -> None:
        """Take one measurement of total momentum; None when none could be made."""

    def weigh(self, staleness: int, excess: float | None) -> None:
        """Take the staleness of a push, and `TotalMomentum.excess` of its gradient where it was measured."""

    def state_dict(self) -> State:
        """Everything that a bit-exact continuation needs."""

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""


class OneActuator:
    """What the loops have in common that move nothing but momentum, or not even that."""

    pull = 0.0

    def rate(self, learning_rate: float, floor: float) -> float:
        """The target's own."""
        return learning_rate

    def weigh(self, staleness: int, excess: float | None) -> None:
        """Leave everything as it is."""


class Open(OneActuator):
    """μ = μ*, whatever is measured."""

    def __init__(self) -> None:
        self.clamped: Clamp | None = None

    def momentum(self, target: float) -> float:
        """The target momentum itself."""
        return target

    def observe(self, target: float, measured: float | None) -> None:
        """Leave everything as it is."""

    def state_dict(self) -> State:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to restore."""


class Closed(OneActuator):
    """`μ ← clip(μ + γ(μ* − μ̂_T))`, from μ = 0.

    The clamp acts on μ itself and μ is the only memory, so nothing builds up behind it: μ leaves the clamp with the
    first error of the other sign. No measurement leaves μ alone.
    """

    def __init__(self, gain: float, momentum_min: float, momentum_max: float) -> None:
        self._gain, self._min, self._max = gain, momentum_min, momentum_max
        self._momentum = min(max(0.0, momentum_min), momentum_max)
        self.clamped: Clamp | None = None

    def momentum(self, target: float) -> float:
        """μ as the measurements so far have left it."""
        return self._momentum

    def observe(self, target: float, measured: float | None) -> None:
        """One step of the loop."""
        if measured is None:
            return
        wanted = self._momentum + self._gain * (target - measured)
        self.clamped = "low" if wanted < self._min else "high" if wanted > self._max else None
        self._momentum = min(max(wanted, self._min), self._max)

    def state_dict(self) -> State:
        """μ and whether it is clamped."""
        return {"momentum": self._momentum, "clamped": self.clamped}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._momentum = float(state["momentum"])
        self.clamped = state["clamped"]
