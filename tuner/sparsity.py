"""How seldom a layer's coordinates are moved, and how much longer its steps must be for that."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from tuner.layers import Layers
from tuner.sums import dot
from tuner.target import State

DENSE = 0.1  # participation from which on a layer's steps are left alone; by measurement (docs/research.md)
LONGEST = 16.0  # most that a layer's steps are lengthened by
EVERY = 4  # gradients of which one is looked at
MEMORY = 0.92  # decay of the average over those: some fifty gradients


class Sparsity:
    """For each layer the running mean of its gradients' participation, p = ‖g‖₁² / (n ‖g‖²), in (0, 1].

    A coordinate of a rule of Adam's kind steps as long as α only where every gradient moves it: mean |step| is
    α E|g| / √E[g²]. Where few rows of an embedding or of an output layer are in a batch, that is about √p α. So such
    a layer's α is multiplied by 0.1/p, at least 1 and at most 16. Normal gradients have p = 2/π.

    freshness: w, the mean of 1/(1 + τ) over the gradients' staleness τ. The factor is raised to √w: with stale
    gradients the common part of such layers, which all rows share, is the first that oscillates. The rows of an
    embedding share none: each is moved by the batches that look it up, and there the factor is left whole.

    embeddings: which of the layers are embeddings. Raises ValueError when there is no such layer.
    """

    def __init__(self, layers: Layers, embeddings: Sequence[int] = ()) -> None:
        self._layers = layers
        self.embeddings = self._among_layers(embeddings)
        self._count = 0
        self._means = [0.0] * len(layers)
        self._seen = 0
        self._clear()

    def look(self, block: slice, gradient: Tensor) -> None:
        """Take a block of a gradient, if it is one that is looked at."""
        if self._count % EVERY:
            return
        for layer, part in self._layers.pieces(block):
            piece = gradient[part]
            self._sums[layer] += piece.abs().sum().item()
            self._squares[layer] += dot(piece, piece)

    def next(self) -> None:
        """Close the gradient that was looked at, if it was finite."""
        looked, self._count = self._count % EVERY == 0, self._count + 1
        if not looked:
            return
        self._seen += 1
        weight = max(1.0 - MEMORY, 1.0 / self._seen)
        for layer, size in enumerate(self._layers.sizes):
            square = self._squares[layer] * size
            if 0.0 < square < math.inf:
                self._means[layer] += weight * (self._sums[layer] ** 2 / square - self._means[layer])
        self._clear()

    def drop(self) -> None:
        """Forget the gradient that was looked at."""
        self._clear()

    def factors(self, freshness: float) -> list[float]:
        """What each layer's steps are multiplied by."""
        whole = [min(max(1.0, DENSE / p), LONGEST) if p > 0.0 else 1.0 for p in self._means]
        power = math.sqrt(freshness)
        lengthened = [factor**power for factor in whole]
        for layer in self.embeddings:
            lengthened[layer] = whole[layer]
        return lengthened

    def least(self, factors: Sequence[float], freshness: float) -> list[float]:
        """How many d_0 each layer's d counts as at least: its factor, and in an embedding 1/w if that is more."""
        least = list(factors)
        for layer in self.embeddings:
            least[layer] = max(least[layer], 1.0 / freshness)
        return least

    def _among_layers(self, numbers: Sequence[int]) -> tuple[int, ...]:
        if not all(0 <= number < len(self._layers) for number in numbers):
            raise ValueError(f"embeddings: expected numbers of {len(self._layers)} layers, got {tuple(numbers)}")
        return tuple(int(number) for number in numbers)

    def _clear(self) -> None:
        self._sums, self._squares = [0.0] * len(self._layers), [0.0] * len(self._layers)

    def state_dict(self) -> State:
        """The averages and where they stand."""
        return {
            "count": self._count,
            "seen": self._seen,
            "means": list(self._means),
            "embeddings": list(self.embeddings),
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer. Raises ValueError when it has embeddings that are no layers."""
        self._clear()
        self.embeddings = self._among_layers(state.get("embeddings", ()))  # a run goes on as it began
        self._count, self._seen = int(state["count"]), int(state["seen"])
        self._means = [float(mean) for mean in state["means"]]
