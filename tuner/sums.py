"""Sums over a gradient, block by block: ‖g‖² and ⟨e, g⟩, fast in float32 where that is exact enough, else in double."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHUNK = 65_536  # longest float32 sum; longer ones lose digits and leave the second-level cache
DEVICE_CHUNK = 1 << 24  # bounds the memory of the double copies on a GPU
TINY = 1e-26  # below this a float32 sum of CHUNK squares may owe a part in 1e7 to squares that underflowed


class Sums:
    """Adds up ‖g‖² and ⟨e, g⟩ over the blocks of one gradient; across chunks in double.

    On the CPU a chunk is summed in float32 (SIMD, error about 1e-7) and again in double when the first answer is tiny
    or not finite. On a GPU everything is summed in double there, and the host waits once, in `totals`.
    """

    def __init__(self) -> None:
        self._pending: list[Tensor] = []
        self.clear()

    def clear(self) -> None:
        """Forget all blocks."""
        self.blocks = 0
        self._pending.clear()
        self._squares = 0.0
        self._products = 0.0

    def add(self, gradient: Tensor, mean: Tensor | None = None) -> None:
        """Add one block of g [n] and of e [n]; None stands for e = 0."""
        self.blocks += 1
        if gradient.device.type != "cpu":
            for start in range(0, gradient.numel(), DEVICE_CHUNK):
                chunk = slice(start, start + DEVICE_CHUNK)
                g = gradient[chunk].double()
                product = torch.dot(g, mean[chunk].double()) if mean is not None else g.new_zeros(())
                self._pending.append(torch.stack((torch.dot(g, g), product)))
            return
        for start in range(0, gradient.numel(), CHUNK):
            chunk = slice(start, start + CHUNK)
            self._add_chunk(gradient[chunk], None if mean is None else mean[chunk])

    def _add_chunk(self, g: Tensor, e: Tensor | None) -> None:
        g = g if g.dtype in (torch.float32, torch.float64) else g.float()
        e = e if e is None or e.dtype == g.dtype else e.to(g.dtype)
        squares = float(torch.dot(g, g))
        products = 0.0 if e is None else float(torch.dot(e, g))
        if not (TINY <= squares < math.inf and math.isfinite(products)) and bool(g.any()):
            g = g.double()
            squares = float(torch.dot(g, g))
            products = 0.0 if e is None else float(torch.dot(e.double(), g))
        self._squares += squares
        self._products += products

    def totals(self) -> tuple[float, float]:
        """‖g‖² and ⟨e, g⟩ over all blocks added since `clear`; not finite when the gradient is not."""
        if self._pending:
            squares, products = torch.stack(self._pending).sum(dim=0).tolist()
            return self._squares + squares, self._products + products
        return self._squares, self._products


def dot(one: Tensor, other: Tensor) -> float:
    """⟨one, other⟩ of two short vectors, in double where single precision may have under- or overflowed."""
    product = torch.dot(one, other).item()
    return product if TINY <= abs(product) < math.inf else torch.dot(one.double(), other.double()).item()
