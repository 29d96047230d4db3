"""What an update rule keeps beside the trajectory, and how it is restored."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

State: TypeAlias = dict[str, Tensor | float | int]


def restore(vector: Tensor, state: State, name: str) -> None:
    """Copy the vector `name` of a saved state over `vector`. Raises ValueError when it has another size."""
    value = state[name]
    if not isinstance(value, Tensor) or value.shape != vector.shape:
        raise ValueError(f"rule.{name}: expected {vector.numel()} values, got {value!r:.60}")
    vector.copy_(value)
