"""The eigenbases of a matrix's rows and columns, as its gradients have them, and how to turn into them and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Placed: TypeAlias = tuple[int, tuple[int, ...]]
"""Where a tensor begins in a flat vector, and its shape."""


@dataclass(frozen=True)
class Side:
    """The rows of a matrix [rows, columns], or its columns, in `blocks` of `size` with a basis of their own each."""

    rows: int
    columns: int
    blocks: int
    of_rows: bool

    @property
    def size(self) -> int:
        """Rows, or columns, of a block."""
        return (self.rows if self.of_rows else self.columns) // self.blocks

    @property
    def values(self) -> int:
        """How many a matrix for each block has."""
        return self.blocks * self.size * self.size

    def stacked(self, matrix: Tensor) -> Tensor:
        """The blocks of a flat matrix: [blocks, size, columns] of rows, [blocks, rows, size] of columns; a view."""
        if self.of_rows:
            return matrix.view(self.blocks, self.size, self.columns)
        return matrix.view(self.rows, self.blocks, self.size).transpose(0, 1)

    def turn(self, matrix: Tensor, bases: Tensor) -> Tensor:
        """The coordinates of a flat matrix in the bases whose vectors are the columns of `bases` [blocks, size, size].

        With the transposed bases it is the way back.
        """
        if self.of_rows:
            return torch.bmm(bases.mT, self.stacked(matrix)).view(-1)
        return torch.bmm(self.stacked(matrix), bases).transpose(0, 1).reshape(-1)

    def products(self, matrix: Tensor) -> Tensor:
        """Of each block the products of its rows, or columns, with each other: [blocks, size, size]."""
        stacked = self.stacked(matrix)
        return torch.bmm(stacked, stacked.mT) if self.of_rows else torch.bmm(stacked.mT, stacked)


def sides(shape: Sequence[int], limit: int) -> tuple[Side, ...]:
    """The sides that are turned of a tensor, taken as a matrix with all dimensions but the first as columns.

    One that is longer than `limit` falls into the fewest equal blocks that are not; where only blocks of less than an
    eighth of that would do, it stays as it is, and so does one of a single element.
    """
    rows, columns = shape[0], math.prod(shape[1:])
    found = []
    for size, of_rows in ((rows, True), (columns, False)):
        blocks = next(count for count in range(-(-size // limit), size + 1) if size % count == 0)
        if size > 1 and (blocks == 1 or 8 * size >= limit * blocks):
            found.append(Side(rows, columns, blocks, of_rows))
    return tuple(found)


class Eigenbasis:
    """The sides of one tensor with a running mean of the products of its gradients in each, and its eigenvectors.

        C ← β C + (1 − β) Σ g_i g_j,   Q = the eigenvectors of C, from `refresh` to `refresh`; at first the identity.

    part: the tensor's elements in the flat vector. products, bases: room for the C and the Q of both sides, `values` of
    each; used in place.
    """

    def __init__(self, part: slice, sides: Sequence[Side], products: Tensor, bases: Tensor) -> None:
        self.part, self.sides = part, tuple(sides)
        sizes = [side.values for side in self.sides]
        shapes = [(side.blocks, side.size, side.size) for side in self.sides]
        self._products = [room.view(shape) for room, shape in zip(torch.split(products, sizes), shapes, strict=True)]
        self.bases = [room.view(shape) for room, shape in zip(torch.split(bases, sizes), shapes, strict=True)]
        for basis in self.bases:
            basis.copy_(torch.eye(basis.shape[-1]))

    def learn(self, gradient: Tensor, decay: float) -> None:
        """Take the products of a gradient (flat, of the tensor alone) into their means."""
        for side, products in zip(self.sides, self._products, strict=True):
            products.mul_(decay).add_(side.products(gradient), alpha=1.0 - decay)

    def into(self, tensor: Tensor) -> Tensor:
        """The tensor (flat) in the basis of both sides."""
        for side, basis in zip(self.sides, self.bases, strict=True):
            tensor = side.turn(tensor, basis)
        return tensor

    def out(self, tensor: Tensor) -> Tensor:
        """Back from there."""
        for side, basis in zip(self.sides, self.bases, strict=True):
            tensor = side.turn(tensor, basis.mT)
        return tensor

    def refresh(self, first: Tensor, second: Tensor) -> None:
        """Replace Q by the eigenvectors of what C is now, and turn what is kept in the old basis into the new.

        first:  a vector in it, which turns as any does.
        second: mean squares in it: the old coordinates taken as independent, v'_j = Σ_i p_ij² v_i, p = Qᵀ Q'.

        Both in place. A C that has no eigenvectors to be found, as one that has overflowed, leaves its Q.
        """
        m, v = first, second
        for side, products, basis in zip(self.sides, self._products, self.bases, strict=True):
            try:
                new = torch.linalg.eigh(products).eigenvectors
            except RuntimeError:  # torch.linalg's LinAlgError is one
                continue
            if not bool(new.isfinite().all()):
                continue
            change = torch.bmm(basis.mT, new)
            m, v = side.turn(m, change), side.turn(v, change.square())
            basis.copy_(new)
        first.copy_(m)
        second.copy_(v)
