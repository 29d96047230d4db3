"""Layers of a flat vector: which elements each of them has, and how far a rule steps in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

Piece = tuple[int, slice]
"""A layer's number, and the elements of a block that are its."""


class Layers:
    """Consecutive parts of a vector of `size` elements, `sizes[i]` of them the i-th's; no sizes: one layer.

    Raises ValueError when the sizes are not positive or do not add up.
    """

    def __init__(self, size: int, sizes: Sequence[int] = ()) -> None:
        self.sizes = tuple(sizes) or (size,)
        self.size = size
        if sum(self.sizes) != size or min(self.sizes) < 1:
            raise ValueError(f"layers: expected positive sizes that add up to {size}, got {sum(self.sizes)} in {sizes}")
        self._ends = list(accumulate(self.sizes))
        self._pieces: dict[tuple[int, int], list[Piece]] = {}

    def __eq__(self, other: object) -> bool:
        """Whether the same elements make up the same layers."""
        return isinstance(other, Layers) and self.sizes == other.sizes

    def __hash__(self) -> int:
        return hash(self.sizes)

    def __len__(self) -> int:
        """How many layers."""
        return len(self.sizes)

    def pieces(self, block: slice) -> list[Piece]:
        """How a block of the vector falls into layers."""
        key = (block.start, block.stop)
        if key not in self._pieces:
            starts = [end - size for end, size in zip(self._ends, self.sizes, strict=True)]
            shared = [(max(a, key[0]), min(b, key[1])) for a, b in zip(starts, self._ends, strict=True)]
            self._pieces[key] = [(i, slice(a - key[0], b - key[0])) for i, (a, b) in enumerate(shared) if a < b]
        return self._pieces[key]

    def numbers(self, take: Callable[[Tensor], Tensor]) -> Tensor:
        """The layer's number of each element that `take` takes of a vector [N]."""
        numbers = torch.arange(len(self), dtype=torch.int32)  # no longer than a vector of parameters
        return take(torch.repeat_interleave(numbers, torch.tensor(self.sizes))).long()


@dataclass(frozen=True)
class Strides:
    """What the learning rate is multiplied by in each layer: `factors[i]` in the i-th.

    invariant: the numbers of layers whose scale does not matter.
    """

    layers: Layers
    factors: tuple[float, ...]
    invariant: frozenset[int] = frozenset()

    def scaled(self, part: slice) -> bool:
        """Whether the scale of a part of the vector, which lies in one layer, matters."""
        return self.layers.pieces(part)[0][0] not in self.invariant

    def pieces(self, block: slice) -> list[tuple[slice, float]]:
        """The pieces of a block and their factors; those with factor 1 left out."""
        return [(part, self.factors[i]) for i, part in self.layers.pieces(block) if self.factors[i] != 1.0]
