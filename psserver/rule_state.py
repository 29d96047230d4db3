"""What an update rule keeps beside the trajectory, and how it is restored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from tuner import Pull, Strides

State: TypeAlias = dict[str, Tensor | float | int]


def restore(vector: Tensor, state: State, name: str) -> None:
    """Copy the vector `name` of a saved state over `vector`. Raises ValueError when it has another size."""
    value = state[name]
    if not isinstance(value, Tensor) or value.shape != vector.shape:
        raise ValueError(f"rule.{name}: expected {vector.numel()} values, got {value!r:.60}")
    vector.copy_(value)


class Attributed:
    """A rule that is told, before `begin`, by whom the gradient of an update is, and how old.

    worker:      its number; 0 for the mean of a synchronous round.
    computed_at: the version it was computed at.
    version:     the version it is applied to.
    """

    worker = computed_at = version = 0

    def attribute(self, worker: int, computed_at: int, version: int) -> None:
        """An update by this gradient may follow; nothing that is saved changes yet."""
        self.worker, self.computed_at, self.version = worker, computed_at, version


class Layered:
    """A rule whose learning rate may differ between layers: `strides` is set before `begin`; None for α everywhere."""

    strides: Strides | None = None


class Pulled:
    """A rule that can take back some of the way since a gradient was computed: `pull` is set before `begin`, or None.

    origin: x_v [N], where it was computed; kept until the update is over.
    """

    pull: Pull | None = None
    origin: Tensor | None = None


@runtime_checkable
class Whole(Protocol):
    """A rule that must see some parts of the vector whole: no block that it is given has less of one than all.

    It does enough to a block for several to be worth doing at once, so it must bear that.
    """

    @property
    def whole(self) -> Sequence[slice]:
        """Those parts, in their order."""


@runtime_checkable
class Preconditioned(Protocol):
    """A rule that divides gradients by what changes between updates: an old one would now be applied otherwise."""

    def around(self, sampled: Tensor) -> Tensor:
        """Of which coordinates (int64 [R]) `applied` must know a gradient to tell of the sampled ones (int64 [K])."""
