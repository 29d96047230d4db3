"""A model whose parameters and gradient are flat vectors, used by one worker or by several virtual ones in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from psserver.errors import LayoutError, TaskError
from worker.layout import Layout
from worker.model import build_model, compile_forward
from worker.task import Task

_Tensors = Mapping[str, Tensor | None]


class Belongings:
    """What a worker's own steps left in the model's buffers, while another worker uses the model.

    saved: one flat tensor for each element type; None stands for the buffers the model was built with.
    """

    def __init__(self) -> None:
        self.saved: list[Tensor] | None = None


class FlatModel:
    """The model of a task on one device, its layout and its flat vectors.

    On a CPU the model's parameters are views into one flat vector and their gradients views into the
    caller's own `out`, so that autograd writes there and nothing is copied. On a GPU both vectors
    lie on the device, and one pinned vector on the host serves both copies of a step.

    task, seed: what `build_model` takes.
    workers:    number of workers of the run, which decides how fast BatchNorm forgets.
    first:      whose buffers the model holds at first.

    batch: who computed last, with which batch and from which recurrent state. parameters, vector: the model's trained
    parameters, and the flat vector [N] on the device that they are views into.
    """

    def __init__(self, task: Task, seed: int, workers: int, device: torch.device, first: Belongings) -> None:
        self.module = build_model(task, seed, device).train()
        _shorten_memory(self.module, workers)
        self.layout = Layout.of(self.module)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.batch: tuple[object, Any, Any] | None = None
        self.vector = self.layout.flatten(self.module).to(device)
        on_gpu = device.type == "cuda"
        self._staging = torch.empty(self.layout.size, pin_memory=True) if on_gpu else self.vector
        self._gradient = torch.zeros(self.layout.size, device=device) if on_gpu else None
        self._bound: Tensor | None = self._gradient
        self.layout.attach(self.module, self.vector, self._gradient)
        if task.compile:
            compile_forward(self.module)
        self._buffers = _Buffers(self.module)
        self._as_built = self._buffers.save()
        self._user = first

    def lend(self, user: Belongings) -> None:
        """Put the buffers of `user` into the model, and keep those of the one who used it before."""
        if user is self._user:
            return
        self._user.saved = self._buffers.save()
        self._buffers.load(self._as_built if user.saved is None else user.saved)
        self._user = user

    def take(self, parameters: NDArray[np.float32] | Tensor) -> None:
        """Compute at `parameters` [N] from now on; raises `LayoutError` if they do not fit."""
        values = parameters.detach().numpy() if isinstance(parameters, Tensor) else parameters
        if values.shape != (self.layout.size,) or values.dtype != np.float32:
            raise LayoutError(
                f"parameters: expected float32 of shape [{self.layout.size}], "
                f"got {values.dtype} of shape {list(values.shape)}"
            )
        np.copyto(self._staging.numpy(), values)
        if self._staging is not self.vector:
            self.vector.copy_(self._staging, non_blocking=True)

    def bind(self, out: Tensor) -> Tensor:
        """Return the gradient [N] that autograd shall add to: `out` itself on a CPU; raises `LayoutError`."""
        if out.device.type != "cpu" or out.shape != (self.layout.size,) or out.dtype != torch.float32:
            raise LayoutError(
                f"out: expected float32 of shape [{self.layout.size}] on the host, "
                f"got {out.dtype} of shape {list(out.shape)} on {out.device}"
            )
        if self._gradient is not None:
            return self._gradient
        if self._bound is None or self._bound.data_ptr() != out.data_ptr():
            self.layout.attach_gradient(self.parameters, out)
            self._bound = out
        return self._bound

    def deliver(self, gradient: Tensor, loss: Tensor, out: Tensor) -> float:
        """Leave the `gradient` that `bind` gave in `out`; return the loss as a number."""
        self._reclaim(gradient)
        if self._gradient is None:
            return float(loss)
        self._staging.copy_(self._gradient, non_blocking=True)
        number = float(loss)  # waits for the device, and so for the copy queued before it
        out.copy_(self._staging)
        return number

    @property
    def gradient(self) -> Tensor:
        """The gradient [N] that `bind` gave last, on the device."""
        if self._bound is None:
            raise RuntimeError("expected bind() before the gradient is asked for")
        return self._bound

    @contextmanager
    def buffers_kept(self) -> Iterator[None]:
        """Context in which forward passes leave no trace in the model's buffers."""
        saved = self._buffers.save()
        try:
            yield
        finally:
            self._buffers.load(saved)

    def _reclaim(self, gradient: Tensor) -> None:
        # A loss that calls `zero_grad` or sets `.grad` itself detaches it from the flat vector.
        start, width = gradient.data_ptr(), gradient.element_size()
        for parameter, segment in zip(self.parameters, self.layout.parameters, strict=True):
            if parameter.grad is not None and parameter.grad.data_ptr() == start + width * segment.offset:
                continue
            place = segment.of(gradient)
            if parameter.grad is None:
                place.zero_()
            else:
                place.copy_(parameter.grad)
            parameter.grad = place


class _Buffers:
    """All that a forward pass may change in a model: buffers of every type, and frozen parameters."""

    def __init__(self, model: nn.Module) -> None:
        # Where they are, not they themselves: `self.average = ...` puts a new tensor in the place of a buffer.
        known: dict[int, tuple[_Tensors, str, Tensor]] = {}
        for module in model.modules():
            for tensors in (module._buffers, module._parameters):
                for name, tensor in tensors.items():
                    if tensor is not None and not tensor.requires_grad:
                        known.setdefault(id(tensor), (tensors, name, tensor))
        self._places = [(tensors, name) for tensors, name, _ in known.values()]
        self._kinds = [(tensor.shape, tensor.dtype) for _, _, tensor in known.values()]

    def save(self) -> list[Tensor]:
        """Copy them, those of one type into one flat tensor."""
        return [torch.cat([t.detach().reshape(-1) for t in tensors]) for tensors in self._by_type()]

    @torch.no_grad()
    def load(self, saved: list[Tensor]) -> None:
        """Write back what `save` returned."""
        for flat, tensors in zip(saved, self._by_type(), strict=True):
            pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
            torch._foreach_copy_(tensors, [p.view(t.shape) for p, t in zip(pieces, tensors, strict=True)])

    def _by_type(self) -> list[list[Tensor]]:
        groups: dict[torch.dtype, list[Tensor]] = {}
        for (tensors, name), kind in zip(self._places, self._kinds, strict=True):
            tensor = tensors[name]
            if tensor is None or (tensor.shape, tensor.dtype) != kind:
                raise TaskError(
                    f"the model's buffer {name!r}: expected {kind[1]} of shape {list(kind[0])} as it was built, "
                    f"got {'nothing' if tensor is None else f'{tensor.dtype} of shape {list(tensor.shape)}'}; "
                    "keep its type and shape"
                )
            groups.setdefault(tensor.dtype, []).append(tensor)
        return list(groups.values())


def _shorten_memory(model: nn.Module, workers: int) -> None:
    """Keep BatchNorm's memory the same in updates of the model: a worker makes one step while M updates pass.

    Its statistics forget as much in that step as one worker's would in M: 1 − (1 − momentum)^M. The server's mean over
    the workers is then as fresh, and averages as many batches, as the statistics of a model trained alone.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.momentum is not None:
            module.momentum = 1.0 - (1.0 - module.momentum) ** workers
