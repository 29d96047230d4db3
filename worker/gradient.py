"""One flat gradient: parameters [N] in, loss and gradient [N] out, a pure function of (parameters, rank, step)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from psserver.errors import LayoutError, TaskError
from worker.layout import Layout, as_tensor
from worker.model import autocast, build_model, compile_forward, count_examples, move_batch, pick_device
from worker.seeds import seed_of
from worker.task import Shard, Task
from worker.usercode import UserCode

__all__ = ["Gradient", "pick_device"]


class Gradient:
    """The model of a task, its flat vectors and its batch stream, in one process on one device.

    layout:  names and places of the parameters; `layout.digest` is what the server compares.
    initial: the parameters the model was built with, float32 [N]; the same for every rank of a seed.

    On a CPU the model's parameters are views into one flat vector and their gradients views into the
    caller's own `out`, so that autograd writes there and nothing is copied. On a GPU both vectors
    lie on the device, and one pinned vector on the host serves both copies of a step.
    """

    def __init__(self, task: Task, shard: Shard, device: torch.device) -> None:
        self.task, self.shard, self.device = task, shard, device
        if task.accumulate < 1:
            raise TaskError(f"the task's accumulate: expected 1 or more batches, got {task.accumulate}")
        self._model = build_model(task, shard.seed, device).train()
        _shorten_memory(self._model, shard.workers)
        self.layout = Layout.of(self._model)
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._vector = self.layout.flatten(self._model).to(device)
        on_gpu = device.type == "cuda"
        self._staging = torch.empty(self.layout.size, pin_memory=True) if on_gpu else self._vector
        self._gradient = torch.zeros(self.layout.size, device=device) if on_gpu else None
        self._bound: Tensor | None = self._gradient
        self.layout.attach(self._model, self._vector, self._gradient)
        if task.compile:
            compile_forward(self._model)
        self._batches: Iterator[Any] | None = None
        self._next_step = 0

    @property
    def initial(self) -> NDArray[np.float32]:
        """The parameters as built, float32 [N]; a new model is built for them, for `compute` overwrites its own."""
        model = build_model(self.task, self.shard.seed, torch.device("cpu"))
        return self.layout.flatten(model).numpy()

    def compute(self, parameters: NDArray[np.float32] | Tensor, out: Tensor, step: int) -> tuple[float, int]:
        """Leave the gradient at `parameters` [N] in `out` (float32 [N], host); return mean loss and examples.

        step: 1, 2, …; decides the batches (`accumulate` of them a step) and every other random number.
              Steps in sequence continue the batch stream, any other step opens it anew at its place.

        `out` stays bound to the model until another buffer is given: on a CPU keep giving the same one.
        Raises `TaskError` if the user's code fails and `LayoutError` if a vector does not fit.
        """
        self._take(parameters)
        gradient = self._bind(out)
        gradient.zero_()
        torch.manual_seed(seed_of("gradient", self.shard.seed, self.shard.rank, step))
        total, examples = self._accumulate(step)
        self._reclaim(gradient)
        if self._gradient is None:
            return float(total), examples
        self._staging.copy_(self._gradient, non_blocking=True)
        loss = float(total)  # waits for the device, and so for the copy queued before it
        out.copy_(self._staging)
        return loss, examples

    def buffers(self) -> NDArray[np.float32]:
        """Return a copy of the model's buffers (BatchNorm statistics), float32 [B]."""
        return self.layout.flatten_buffers(self._model).numpy()

    def load_buffers(self, values: NDArray[np.float32] | Tensor) -> None:
        """Start from these buffers [B], say the server's average, in place of those the model was built with."""
        self.layout.load_buffers(self._model, as_tensor(values, self.layout.buffer_size, "buffers"))

    def _take(self, parameters: NDArray[np.float32] | Tensor) -> None:
        values = parameters.detach().numpy() if isinstance(parameters, Tensor) else parameters
        if values.shape != (self.layout.size,) or values.dtype != np.float32:
            raise LayoutError(
                f"parameters: expected float32 of shape [{self.layout.size}], "
                f"got {values.dtype} of shape {list(values.shape)}"
            )
        np.copyto(self._staging.numpy(), values)
        if self._staging is not self._vector:
            self._vector.copy_(self._staging, non_blocking=True)

    def _bind(self, out: Tensor) -> Tensor:
        if out.device.type != "cpu" or out.shape != (self.layout.size,) or out.dtype != torch.float32:
            raise LayoutError(
                f"out: expected float32 of shape [{self.layout.size}] on the host, "
                f"got {out.dtype} of shape {list(out.shape)} on {out.device}"
            )
        if self._gradient is not None:
            return self._gradient
        if self._bound is None or self._bound.data_ptr() != out.data_ptr():
            self.layout.attach_gradient(self._parameters, out)
            self._bound = out
        return self._bound

    def _accumulate(self, step: int) -> tuple[Tensor, int]:
        task, count = self.task, self.task.accumulate
        stream = self._stream(step)
        total, examples = torch.zeros((), device=self.device), 0
        for _ in range(count):
            batch = self._draw(stream, step)
            examples += count_examples(batch)
            with UserCode(f"the task's loss, at step {step}"):
                batch = move_batch(batch, self.device, task.channels_last)
                with autocast(task, self.device):
                    loss = task.loss(self._model, batch)
                _check(loss)
                loss = loss / count if count > 1 else loss
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self._batches, self._next_step = stream, step + 1
        return total, examples

    def _stream(self, step: int) -> Iterator[Any]:
        stream, self._batches = self._batches, None  # a step that fails leaves no half-read stream behind
        if stream is not None and step == self._next_step:
            return stream
        with UserCode(f"the task's batches, at step {step}"):
            return iter(self.task.batches(replace(self.shard, start=(step - 1) * self.task.accumulate)))

    def _draw(self, stream: Iterator[Any], step: int) -> Any:
        with UserCode(f"the task's batches, at step {step}"):
            try:
                return next(stream)
            except StopIteration:
                raise TaskError(
                    f"the task's batches ended at step {step}; the stream must be endless (`while True:`)"
                ) from None

    def _reclaim(self, gradient: Tensor) -> None:
        # A loss that calls `zero_grad` or sets `.grad` itself detaches it from the flat vector.
        start, width = gradient.data_ptr(), gradient.element_size()
        for parameter, segment in zip(self._parameters, self.layout.parameters, strict=True):
            if parameter.grad is not None and parameter.grad.data_ptr() == start + width * segment.offset:
                continue
            place = segment.of(gradient)
            if parameter.grad is None:
                place.zero_()
            else:
                place.copy_(parameter.grad)
            parameter.grad = place


def _shorten_memory(model: nn.Module, workers: int) -> None:
    """Keep BatchNorm's memory the same in updates of the model: a worker makes one step while M updates pass.

    Its statistics forget as much in that step as one worker's would in M: 1 − (1 − momentum)^M. The server's mean over
    the workers is then as fresh, and averages as many batches, as the statistics of a model trained alone.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.momentum is not None:
            module.momentum = 1.0 - (1.0 - module.momentum) ** workers


def _check(loss: object) -> None:
    if not isinstance(loss, Tensor):
        raise TaskError(f"the task's loss returned a {type(loss).__name__}, expected a tensor with one number")
    if loss.numel() != 1:
        raise TaskError(
            f"the task's loss returned a tensor of shape {list(loss.shape)}, expected one number: "
            "the mean over the batch (`.mean()`)"
        )
    if not loss.requires_grad:
        raise TaskError(
            "the task's loss does not depend on the model's parameters through autograd; "
            "compute it from the module it is given, outside `torch.no_grad()`"
        )
