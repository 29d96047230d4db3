"""A gradient told to the distance target, in any number of blocks."""

from __future__ import annotations

from torch import Tensor

from tuner.distance import LearntDistance
from tuner.target import Decision

SIZE = 40


def told(target: LearntDistance, gradient: Tensor, origin: Tensor, blocks: int = 1) -> Decision:
    """Look at all blocks, decide, absorb all."""
    parts = [slice(k * SIZE // blocks, (k + 1) * SIZE // blocks) for k in range(blocks)]
    for part in parts:
        target.look(part, gradient[part], origin[part])
    decision = target.decide()
    for part in parts:
        target.absorb(part, gradient[part])
    return decision
