"""The loop between target momentum and the momentum the update applies: open, or closed by measurement.

Source: Zhang and Mitliagkas (2019), closed-loop momentum control; total momentum after Mitliagkas et al. (2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from tuner.target import State

Clamp = Literal["low", "high"]


@dataclass(frozen=True)
class Pull:
    """How much of the way from x_v to x_t an update takes back: `part` in the mean over directions, `most` at most.

    Both in (0, 1]; the more curved the loss is along a direction, the more of the way along it.
    """

    part: float
    most: float


class Loop(Protocol):
    """Turns target momentum μ* and measured total momentum μ̂_T into the momentum μ to apply."""

    clamped: Clamp | None
    """At which end the clamp held μ back at the last observation."""

    def momentum(self, target: float) -> float:
        """μ to apply now."""

    def rate(self, learning_rate: float, floor: float) -> float:
        """α to apply now, where the target chose `learning_rate`; floor: see `Decision`."""

    def pull(self, staleness: int) -> Pull | None:
        """How much of the way since x_v an update by a gradient of that staleness takes back."""

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

    def pull(self, staleness: int) -> Pull | None:
        """Nothing."""
        return None

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
