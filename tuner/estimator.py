"""What an estimator of total momentum is: it remembers versions and says μ̂_T for one gradient after another."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from tuner.target import State


class Estimator(Protocol):
    """Measures total momentum μ_T while training.

    Version 0 is recorded before the first gradient; then, for each gradient, the version it made is recorded and the
    gradient measured. Without staleness every estimator answers the update's own μ. Memory does not grow with updates.
    """

    def sample(self, vector: Tensor) -> Tensor:
        """The coordinates [K] of a vector [N] that the estimator looks at, as a tensor of its own."""

    def record(self, version: int, sampled: Tensor, learning_rate: float, momentum: float = 0.0) -> None:
        """Remember a version: its sampled coordinates [K], and the α and μ of the update that made it."""

    def measure(self, version: int, applied: Tensor) -> float | None:
        """μ̂_T from the gradient [K] that made the newest version and was computed at `version`, as it was applied.

        None when it cannot be measured.
        """

    def holds(self, version: int) -> bool:
        """Whether that version is remembered."""

    def state_dict(self) -> State:
        """Everything that a bit-exact continuation needs."""

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer. Raises ValueError when it is of another size."""
