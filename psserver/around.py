"""What lies around sampled coordinates: the blocks of a tensor that turn with them into an eigenbasis and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from psserver.eigenbasis import Eigenbasis, Side


class Blocks:
    """Some of the blocks of one tensor, taken as a matrix, that turn as one: as long as its sides' own, else 1.

    part: the tensor's elements in the flat vector. sides: those of it that are turned. numbers: which blocks (int64
    [n]), counted along the rows.
    """

    def __init__(self, part: slice, sides: Sequence[Side], numbers: Tensor) -> None:
        rows, columns = _shape(sides)
        self._along = sides[0].columns // columns
        self._numbers = {True: numbers // self._along, False: numbers % self._along}
        self._sides = tuple(sides)
        down = self._numbers[True].unsqueeze(1) * rows + torch.arange(rows)
        across = self._numbers[False].unsqueeze(1) * columns + torch.arange(columns)
        self._shape = len(numbers), rows, columns
        places = down.unsqueeze(2) * sides[0].columns + across.unsqueeze(1)
        self.coordinates = places.flatten() + part.start

    def turn(self, values: Tensor, bases: Sequence[Tensor], *, back: bool) -> Tensor:
        """Values at `coordinates`, in the bases of the sides (see `Eigenbasis`), or `back` from there."""
        found = values.view(self._shape)
        for side, basis in zip(self._sides, bases, strict=True):
            mine = basis.index_select(0, self._numbers[side.of_rows])
            if side.of_rows:
                found = torch.bmm(mine if back else mine.mT, found)
            else:
                found = torch.bmm(found, mine.mT if back else mine)
        return found.flatten()


class Around:
    """The blocks of all tensors in which sampled coordinates lie, and those coordinates that lie in none.

    coordinates: the blocks' and the others' (int64 [R]). sampled: the sampled ones, rising (int64 [K]).
    """

    def __init__(self, tensors: Sequence[Eigenbasis], sampled: Tensor) -> None:
        self._blocks: list[tuple[Eigenbasis, Blocks, slice]] = []
        found, start, alone = [], 0, torch.ones_like(sampled, dtype=torch.bool)
        for tensor in tensors:
            inside = (sampled >= tensor.part.start) & (sampled < tensor.part.stop)
            if not bool(inside.any()):
                continue
            alone &= ~inside
            blocks = Blocks(tensor.part, tensor.sides, _numbers(tensor, sampled[inside] - tensor.part.start))
            self._blocks.append((tensor, blocks, slice(start, start + blocks.coordinates.numel())))
            start += blocks.coordinates.numel()
            found.append(blocks.coordinates)
        self.coordinates = torch.cat([*found, sampled[alone]])
        order = self.coordinates.argsort()
        self._sampled = order[torch.searchsorted(self.coordinates[order], sampled)]

    def into(self, values: Tensor) -> Tensor:
        """What was given at `coordinates`, turned where it is in a tensor's block; a new tensor [R]."""
        return self._turned(values, back=False)

    def out(self, values: Tensor) -> Tensor:
        """Back from there, at the sampled coordinates [K]."""
        return self._turned(values, back=True).index_select(0, self._sampled)

    def _turned(self, values: Tensor, *, back: bool) -> Tensor:
        found = values.clone()
        for tensor, blocks, part in self._blocks:
            found[part] = blocks.turn(values[part], tensor.bases, back=back)
        return found


def block_count(sides: Sequence[Side]) -> int:
    """How many blocks the matrix with these turned sides has."""
    rows, columns = _shape(sides)
    return (sides[0].rows // rows) * (sides[0].columns // columns)


def _shape(sides: Sequence[Side]) -> tuple[int, int]:
    """Rows and columns of a block."""
    of = {side.of_rows: side.size for side in sides}
    return of.get(True, 1), of.get(False, 1)


def _numbers(tensor: Eigenbasis, places: Tensor) -> Tensor:
    """The blocks in which places of a tensor (its own, from 0) lie."""
    rows, columns = _shape(tensor.sides)
    width = tensor.sides[0].columns
    numbers: Tensor = torch.unique((places // width // rows) * (width // columns) + places % width // columns)
    return numbers
