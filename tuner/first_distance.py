"""Where the distance target starts: d_0 of each layer, from what its parameters are and what they could have been."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tuner.invariance import normalisations
from tuner.layers import Layers

FIRST = 0.04  # d_0 in parts of a layer's magnitude; by measurement, as all of these (docs/research.md)
INITIAL = 1e-3  # d_0 where that is 0 and no shapes are known: Adam's customary learning rate
CUSTOMARY = 0.5  # of 1/√fan-in: the mean magnitude of PyTorch's initial weights, uniform within ± 1/√fan-in
SMALL = 0.5  # of that which a layer's magnitude counts as at least
INVARIANT = 0.5  # of d_0 where the layer's scale does not matter: all of a step turns it
APART = 4.0  # a layer's own d_0 is at most this many times the whole vector's, or this part of it


def magnitudes(start: Tensor, layers: Layers, fans: Sequence[int] = ()) -> list[float]:
    """What the mean magnitude of each layer's x_0 counts as, `start` being x_0 [N].

    A distance is of the parameters' scale, unless that says nothing of how far they have to go: where they start at 0,
    as the last layer of a branch may, or much smaller than is usual, as word vectors do. Then the shape says more: at 0
    they count as what PyTorch would have started them with, and else as at least half of it.

    fans: of each layer, 0 where it has none; without them the magnitudes are what they are.
    """
    own = [float(part.abs().double().mean()) for part in torch.split(start, list(layers.sizes))]
    if not fans:
        return own
    usual = [CUSTOMARY / math.sqrt(fan) if fan else 0.0 for fan in fans]
    return [max(of, SMALL * at) if of > 0.0 else at for of, at in zip(own, usual, strict=True)]


def first_distances(start: Tensor, layers: Layers, invariant: Sequence[bool], fans: Sequence[int] = ()) -> list[float]:
    """d_0 of each layer: 0.04 of its magnitude, but within a factor of 4 of what that is over all parameters.

    Half as much in an `invariant` layer, whose scale does not matter; and in the scale and shift of the normalisation
    that follows one no more than over all parameters.
    """
    of = magnitudes(start, layers, fans)
    whole = FIRST * sum(size / layers.size * magnitude for size, magnitude in zip(layers.sizes, of, strict=True))
    if not 0.0 < whole < math.inf:
        return [INVARIANT * INITIAL if turns else INITIAL for turns in invariant]
    first = [min(max(FIRST * magnitude, whole / APART), whole * APART) for magnitude in of]
    first = [INVARIANT * d if turns else d for d, turns in zip(first, invariant, strict=True)]
    after = normalisations(invariant, layers, start)
    return [min(d, whole) if beside else d for d, beside in zip(first, after, strict=True)]
