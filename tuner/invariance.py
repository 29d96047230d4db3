"""Which layers' scale does not matter to the loss, as where a normalisation follows them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tuner.layers import Layers

LEVEL = 0.005  # of the cosine that a gradient would have with parameters it knows nothing of, 1/√n


class Invariance:
    """Tells from one gradient g at parameters x which layers are scale-invariant, f(c x) = f(x): there ⟨g, x⟩ = 0.

    So it is, batch for batch, for weights before a normalisation (van Laarhoven 2017), but for what its ε adds. A layer
    of n parameters counts as one where |⟨g, x⟩| < 0.005 ‖g‖ ‖x‖ / √n, as chance has it in four layers of a thousand.

    weight_decay: λ, if λx is part of g; it has no part in the comparison.
    """

    def __init__(self, layers: Layers, weight_decay: float) -> None:
        self._layers, self._decay = layers, weight_decay
        self._products, self._gradients, self._parameters = ([0.0] * len(layers) for _ in range(3))

    def look(self, block: slice, gradient: Tensor, parameters: Tensor) -> None:
        """Take one block of both."""
        for layer, part in self._layers.pieces(block):
            x = parameters[part].double()
            g = gradient[part].double() - self._decay * x
            self._products[layer] += g.dot(x).item()
            self._gradients[layer] += g.dot(g).item()
            self._parameters[layer] += x.dot(x).item()

    def found(self) -> list[bool]:
        """Whether each layer is scale-invariant; one without any gradient, or at 0, is not."""
        sums = zip(self._products, self._gradients, self._parameters, self._layers.sizes, strict=True)
        return [gg * xx > 0.0 and abs(gx) < LEVEL * math.sqrt(gg * xx / n) for gx, gg, xx, n in sums]


def normalisations(invariant: Sequence[bool], layers: Layers, start: Tensor) -> list[bool]:
    """Which layers are a normalisation's scale and shift: after an invariant one, and nothing but ones and zeros first.

    start: x_0 [N].
    """
    follows = (False, *invariant[:-1])
    parts = torch.split(start, list(layers.sizes))
    return [of and bool(((x == 0.0) | (x == 1.0)).all()) for of, x in zip(follows, parts, strict=True)]
