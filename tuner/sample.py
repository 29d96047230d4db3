"""A fixed random sample of the coordinates of a flat vector."""

from __future__ import annotations

import random

import torch
from torch import Tensor


class Sample:
    """K of N coordinates, drawn once by `seed`, in rising order.

    size: N. sample: K, at most N; 0 for all N; or the coordinates themselves, rising (int64 [K]).
    """

    def __init__(self, size: int, sample: int | Tensor, seed: int) -> None:
        self.size = size
        self._index: Tensor | None = None
        if isinstance(sample, Tensor):
            self._index = sample.clone()
        elif 0 < sample < size:
            self._index = torch.tensor(sorted(random.Random(seed).sample(range(size), sample)))

    @property
    def count(self) -> int:
        """K, the number of coordinates sampled."""
        return self.size if self._index is None else self._index.numel()

    def take(self, vector: Tensor) -> Tensor:
        """The sampled coordinates of a vector [N], as a new tensor [K]. Raises ValueError for another N."""
        if vector.numel() != self.size:
            raise ValueError(f"vector: expected {self.size} values, got {vector.numel()}")
        if self._index is None:
            return vector.clone()
        if self._index.device != vector.device:
            self._index = self._index.to(vector.device)
        return vector.index_select(0, self._index)

    def saved(self) -> Tensor | None:
        """A copy of the coordinates' numbers [K]; None when they are all."""
        return None if self._index is None else self._index.clone()

    def restore(self, index: Tensor | None) -> None:
        """Take `saved`'s answer. Raises ValueError when the sample has another size."""
        count = self.size if index is None else index.numel()
        if count != self.count:
            raise ValueError(f"sample: expected {self.count} coordinates, got {count}")
        self._index = None if index is None else index.clone()
