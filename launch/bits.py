"""Bit for bit: where two states differ, and which of a model's tensors hold what they should not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from worker.layout import Layout

_MOST_NAMES = 6


def same_number(one: object, other: object) -> bool:
    """Equal, with NaN equal to itself."""
    both_nan = isinstance(one, float) and isinstance(other, float) and one != one and other != other
    return both_nan or one == other


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal in type, shape and every bit."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(_bytes(one), _bytes(other))


def first_difference(recorded: Any, recomputed: Any, name: str) -> tuple[str, str, str] | None:
    """Name, recorded and recomputed value of the first leaf in which two nested states differ; None if in none.

    Leaves are tensors, which must agree in every bit, and what JSON holds.
    """
    if isinstance(recorded, Mapping) and isinstance(recomputed, Mapping):
        keys = dict.fromkeys([*recorded, *recomputed])
        pairs = ((recorded.get(key), recomputed.get(key), f"{name}.{key}") for key in keys)
    elif isinstance(recorded, list | tuple) and isinstance(recomputed, list | tuple):
        length = max(len(recorded), len(recomputed))
        pairs = ((_at(recorded, k), _at(recomputed, k), f"{name}[{k}]") for k in range(length))
    elif isinstance(recorded, Tensor) and isinstance(recomputed, Tensor):
        if same_bits(recorded, recomputed):
            return None
        return name, _described(recorded), f"{_described(recomputed)}, {_apart(recorded, recomputed)}"
    else:
        return None if same_number(recorded, recomputed) else (name, str(recorded), str(recomputed))
    return next((found for pair in pairs if (found := first_difference(*pair)) is not None), None)


def differing_tensors(layout: Layout, recorded: Tensor, recomputed: Tensor) -> list[str]:
    """The named tensors of two flat vectors [N] that differ: how many values of each, and by how much at most."""
    pairs = ((s.name, s.of(recorded), s.of(recomputed)) for s in layout.parameters)
    return _few(f"{name}: {_apart(one, other)}" for name, one, other in pairs if not same_bits(one, other))


def tensors_not_finite(layout: Layout, vector: Tensor) -> list[str]:
    """The named tensors of a flat vector [N] that hold NaN or infinity, and how many values of each do."""
    counts = ((s.name, s.size, s.size - int(torch.isfinite(s.of(vector)).sum())) for s in layout.parameters)
    return _few(f"{name}: {bad} of {size} values" for name, size, bad in counts if bad)


def largest(layout: Layout, vector: Tensor) -> str:
    """The largest magnitude in a flat vector [N], and in which tensor; NaN counts as the largest."""
    sizes = {segment.name: float(segment.of(vector).abs().max()) for segment in layout.parameters if segment.size}
    name = max(sizes, key=lambda name: math.inf if math.isnan(sizes[name]) else sizes[name])
    return f"{sizes[name]:.3g} in {name}"


def _few(lines: Iterator[str]) -> list[str]:
    found = list(lines)
    more = len(found) - _MOST_NAMES
    return [*found[:_MOST_NAMES], f"and {more} more tensors"] if more > 0 else found


def _at(items: list[Any] | tuple[Any, ...], position: int) -> Any:
    return items[position] if position < len(items) else None


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _apart(one: Tensor, other: Tensor) -> str:
    if one.shape != other.shape:
        return f"shape {list(other.shape)} for {list(one.shape)}"
    different = one != other
    gap = float((one.double() - other.double()).abs().max()) if one.numel() else 0.0
    return f"{int(different.sum())} of {one.numel()} values differ, by at most {gap:.3g}"


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
