"""A model as one flat vector: which parameter lies where, and a digest that two hosts can compare."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from psserver.errors import LayoutError


@dataclass(frozen=True)
class Segment:
    """One tensor's place in a flat vector: elements `offset` to `offset + size`."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def of(self, vector: Tensor) -> Tensor:
        """Return the tensor itself, a view into `vector`."""
        return vector.narrow(0, self.offset, self.size).view(self.shape)


@dataclass(frozen=True)
class Layout:
    """Where each tensor of a model lies.

    parameters: what is trained, float32, in the order of `named_parameters`; tied ones once.
    buffers:    what gets no gradient and yet belongs to the state, in floating point: persistent buffers
                such as BatchNorm's running statistics, and frozen parameters. Integer ones stay local.
    tables:     names of the parameters that are an embedding's, and of no module of another kind, as tied ones are.
    """

    parameters: tuple[Segment, ...]
    buffers: tuple[Segment, ...]
    tables: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: nn.Module) -> Layout:
        """Read the layout off `model`; raises `LayoutError` where it has none."""
        lazy = [n for n, p in model.named_parameters() if is_lazy(p)]
        if lazy:
            raise LayoutError(
                f"parameter {lazy[0]!r} has no shape yet (a lazy module); "
                "send one batch through the model before the task's model function returns it"
            )
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.dtype != torch.float32:
                raise LayoutError(
                    f"parameter {name!r}: expected float32, got {_short(parameter.dtype)}; build the model in "
                    "float32, and set the task's `autocast` for computation in lower precision"
                )
        layout = cls(_segments(_trained(model)), _segments(_untrained(model)), _tables(model))
        if not layout.size:
            raise LayoutError(f"{type(model).__name__} has no parameter that requires a gradient")
        return layout

    @cached_property
    def size(self) -> int:
        """N, the number of trained parameters."""
        return sum(segment.size for segment in self.parameters)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """How many of the trained parameters each layer has, in their order.

        A layer is a tensor with the vectors that follow it in the same module: a weight with its bias, say. What the
        model holds itself, in none of its modules, is a layer for each tensor.
        """
        return tuple(sum(segment.size for segment in layer) for layer in self._grouped)

    @cached_property
    def embeddings(self) -> tuple[int, ...]:
        """The numbers of the layers that are embeddings."""
        return tuple(number for number, layer in enumerate(self._grouped) if layer[0].name in self.tables)

    @cached_property
    def fans(self) -> tuple[int, ...]:
        """The fan-in of each layer's tensor, as PyTorch counts it: elements a row, a row for each index of its first
        dimension; 0 where a layer is nothing but vectors."""
        tensors = (layer[0] for layer in self._grouped)
        return tuple(tensor.size // tensor.shape[0] if len(tensor.shape) > 1 else 0 for tensor in tensors)

    @cached_property
    def tensors(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Where each tensor of two dimensions or more begins, and its shape; embeddings' are left out."""
        return tuple((s.offset, s.shape) for s in self.parameters if len(s.shape) > 1 and s.name not in self.tables)

    @cached_property
    def _grouped(self) -> list[list[Segment]]:
        """The parameters of each layer."""
        layers: list[list[Segment]] = []
        module = ""
        for segment in self.parameters:
            here = segment.name.rpartition(".")[0]
            if here and here == module and len(segment.shape) < 2:
                layers[-1].append(segment)
            else:
                layers.append([segment])
            module = here
        return layers

    @cached_property
    def buffer_size(self) -> int:
        """B, the number of elements of the buffers."""
        return sum(segment.size for segment in self.buffers)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of names and shapes in their order; equal digests mean that vectors may be exchanged."""
        lines = [
            f"{kind} {segment.name} {'x'.join(map(str, segment.shape))}\n"
            for kind, segments in (("parameter", self.parameters), ("buffer", self.buffers))
            for segment in segments
        ]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def flatten(self, model: nn.Module) -> Tensor:
        """Copy the parameters into a new float32 vector [N] on the host."""
        return _gather(self.parameters, _trained(model), self.size)

    def flatten_buffers(self, model: nn.Module) -> Tensor:
        """Copy the buffers into a new float32 vector [B] on the host."""
        return _gather(self.buffers, _untrained(model), self.buffer_size)

    def load_buffers(self, model: nn.Module, vector: Tensor) -> None:
        """Write `vector` [B] into the buffers of `model`."""
        _need(vector, self.buffer_size, "the buffers")
        with torch.no_grad():
            for segment, (_, tensor) in zip(self.buffers, _untrained(model), strict=True):
                tensor.copy_(segment.of(vector))

    def attach(self, model: nn.Module, vector: Tensor, gradient: Tensor | None) -> None:
        """Make every parameter a view into `vector` [N], and its `.grad` one into `gradient` [N] (None: no `.grad`).

        Both lie on the device where the model shall compute; autograd then adds to `gradient` in place.
        The caller keeps owning both.
        """
        _need(vector, self.size, "the parameters")
        parameters = [parameter for _, parameter in _trained(model)]
        for parameter, segment in zip(parameters, self.parameters, strict=True):
            parameter.data = segment.of(vector)
        if gradient is None:
            for parameter in parameters:
                parameter.grad = None
        else:
            self.attach_gradient(parameters, gradient)

    def attach_gradient(self, parameters: Iterable[nn.Parameter], gradient: Tensor) -> None:
        """Make the `.grad` of every one of `parameters` (in the order of this layout) a view into `gradient` [N]."""
        _need(gradient, self.size, "the gradient")
        for parameter, segment in zip(parameters, self.parameters, strict=True):
            parameter.grad = segment.of(gradient)


def as_tensor(values: NDArray[np.float32] | Tensor, size: int, what: str) -> Tensor:
    """Return `values` as a tensor of `size` elements to read from, without a copy where that is possible.

    Raises `LayoutError`, naming `what`, if it has another shape.
    """
    if tuple(values.shape) != (size,):
        raise LayoutError(f"{what}: expected a vector of {size} elements, got shape {list(values.shape)}")
    if isinstance(values, Tensor):
        return values.detach()
    # torch warns of arrays it could write to by mistake; a version in shared memory is such a one.
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def _untrained(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    persistent = model.state_dict(keep_vars=True).keys()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            yield name, parameter
    for name, buffer in model.named_buffers():
        if name in persistent and buffer.is_floating_point():
            yield name, buffer


def _tables(model: nn.Module) -> frozenset[str]:
    holders: dict[nn.Parameter, bool] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            holders[parameter] = holders.get(parameter, True) and isinstance(module, nn.Embedding | nn.EmbeddingBag)
    return frozenset(name for name, parameter in _trained(model) if holders[parameter])


def _segments(tensors: Iterable[tuple[str, Tensor]]) -> tuple[Segment, ...]:
    segments, offset = [], 0
    for name, tensor in tensors:
        segments.append(Segment(name, tuple(tensor.shape), offset))
        offset += tensor.numel()
    return tuple(segments)


def _gather(segments: tuple[Segment, ...], tensors: Iterable[tuple[str, Tensor]], size: int) -> Tensor:
    vector = torch.empty(size, dtype=torch.float32)
    with torch.no_grad():
        for segment, (_, tensor) in zip(segments, tensors, strict=True):
            segment.of(vector).copy_(tensor)
    return vector


def _need(vector: Tensor, size: int, what: str) -> None:
    if vector.shape != (size,) or vector.dtype != torch.float32 or not vector.is_contiguous():
        raise LayoutError(
            f"{what}: expected a contiguous float32 vector of {size} elements, "
            f"got {_short(vector.dtype)} of shape {list(vector.shape)}"
        )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
