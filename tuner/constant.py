"""The constant target: the user's own learning rate and momentum."""

from __future__ import annotations

import math

from torch import Tensor

from tuner.sums import Sums
from tuner.target import Decision, NonFiniteGradient, State


class Constant:
    """α and μ* as given, for every gradient; looks at a gradient only for its norm and whether it is finite."""

    def __init__(self, learning_rate: float, momentum: float) -> None:
        self._learning_rate, self._momentum = learning_rate, momentum
        self._count = 0
        self._sums = Sums()

    def rate(self, t: int) -> float:
        """Learning rate of update number t, from 0."""
        return self._learning_rate

    def hear(self, loss: float, staleness: int = 0) -> None:
        """Keep nothing."""

    def look(self, block: slice, gradient: Tensor, origin: Tensor | None = None) -> None:
        """Take ‖g‖² of one block."""
        self._sums.add(gradient)

    def look_curvature(self, h_max: float, h_mean: float) -> None:
        """Leave everything as it is."""

    def decide(self) -> Decision:
        """The numbers for this update; see `Target` for the errors."""
        if not self._sums.blocks:
            raise RuntimeError("expected look() at the blocks of a gradient before decide(), got none")
        squares, _ = self._sums.totals()
        self._sums.clear()
        if not math.isfinite(squares):
            raise NonFiniteGradient(f"expected a finite gradient, got one with ‖g‖² = {squares}")
        rate = self.rate(self._count)
        self._count += 1
        return Decision(rate, self._momentum, 1.0, math.sqrt(squares))

    def absorb(self, block: slice, gradient: Tensor) -> None:
        """Keep nothing."""

    def state_dict(self) -> State:
        """How many updates were made."""
        return {"count": self._count}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._sums.clear()
        self._count = int(state["count"])
