"""One flat gradient: parameters [N] in, loss and gradient [N] out, a pure function of (parameters, rank, step)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from psserver.errors import ConfigurationError, TaskError
from worker.curvature import hessian_product, measure, twice_differentiable
from worker.flat import Belongings, FlatModel
from worker.layout import Layout, as_tensor
from worker.line_search import line_minimum
from worker.model import autocast, build_model, count_examples, map_tensors, move_batch, pick_device
from worker.seeds import seed_of
from worker.task import Shard, Task
from worker.usercode import UserCode

__all__ = ["Gradient", "pick_device"]


class Gradient:
    """The model of a task, its flat vectors and one worker's batch stream, in one process on one device.

    layout:    names and places of the parameters; `layout.digest` is what the server compares.
    initial:   the parameters the model was built with, float32 [N]; the same for every rank of a seed.
    restarted: the last `compute` started from a fresh recurrent state, for it was the first or its step did not follow
               the one before. False for a task without state.

    Where a task has a recurrent state, the gradient is also a function of the worker's steps since that began.
    One thread uses a gradient and all that are made of it by `another`.
    """

    def __init__(self, task: Task, shard: Shard, device: torch.device, model: FlatModel | None = None) -> None:
        """`model`: one that others use as well, see `another`; None builds it."""
        self.task, self.shard, self.device = task, shard, device
        if task.accumulate < 1:
            raise TaskError(f"the task's accumulate: expected 1 or more batches, got {task.accumulate}")
        self.restarted = False
        self._own = Belongings()
        self._model = model or FlatModel(task, shard.seed, shard.workers, device, self._own)
        self._batches: Iterator[Any] | None = None
        self._state: Any = None
        self._next_step = 0
        self._direction: Tensor | None = None
        self._length: float | None = None

    def another(self, shard: Shard) -> Gradient:
        """Return the gradient of another worker that shares this one's model, vectors and layout.

        It has a batch stream, buffers (BatchNorm statistics) and a recurrent state of its own, and gives the same
        bits as one built by itself. The two compute in turn, never at once. Costs next to nothing.
        """
        if (shard.seed, shard.workers) != (self.shard.seed, self.shard.workers):
            raise ConfigurationError(
                f"gradients that share a model need the same seed and number of workers: expected {self.shard.seed} "
                f"and {self.shard.workers}, got {shard.seed} and {shard.workers}"
            )
        return Gradient(self.task, shard, self.device, self._model)

    @property
    def layout(self) -> Layout:
        """Names and places of the model's parameters and buffers."""
        return self._model.layout

    @property
    def initial(self) -> NDArray[np.float32]:
        """The parameters as built, float32 [N]; a new model is built for them, for `compute` overwrites its own."""
        model = build_model(self.task, self.shard.seed, torch.device("cpu"))
        return self.layout.flatten(model).numpy()

    def compute(self, parameters: NDArray[np.float32] | Tensor, out: Tensor, step: int) -> tuple[float, int]:
        """Leave the gradient at `parameters` [N] in `out` (float32 [N], host); return mean loss and examples.

        step: 1, 2, …; decides the batches (`accumulate` of them a step) and every other random number.
              Steps in sequence continue the batch stream and the recurrent state; any other step opens the stream
              anew at its place and starts from a fresh state.

        `out` stays bound to the model until another buffer is given: on a CPU keep giving the same one.
        Raises `TaskError` if the user's code fails and `LayoutError` if a vector does not fit.
        """
        self._model.lend(self._own)
        self._model.take(parameters)
        gradient = self._model.bind(out)
        gradient.zero_()
        self._seed(step)
        total, examples = self._accumulate(step)
        return self._model.deliver(gradient, total, out), examples

    def curvature(self) -> tuple[float, float] | None:
        """Measure the Hessian of the loss of the step just computed: same parameters, batch and random numbers.

        Returns the largest magnitude of an eigenvalue and an estimate of the diagonal's mean; None where they are not
        finite. Of several accumulated batches the last one counts. The first measurement of a worker costs more than
        the later ones, which go on from the direction it found; see `worker.curvature.measure`.

        A forward pass of its own, so that a gradient has the same bits whether or not it is measured. Raises TaskError
        where torch cannot differentiate the loss twice; RuntimeError if another gradient was computed meanwhile.
        """
        model, task = self._model, self.task
        batch, state = self._just_computed("curvature")
        step = self._next_step - 1
        try:
            with model.buffers_kept(), twice_differentiable(model.module, task.compile):
                self._seed(step)
                with autocast(task, self.device):
                    loss, _ = self._loss(batch, state)
                product = hessian_product(loss, model.parameters)
                seed = seed_of("curvature", self.shard.seed, self.shard.rank, step)
                found, self._direction = measure(product, self._direction, model.vector, seed)
        except RuntimeError as error:
            raise TaskError(
                "tuner.curvature=hessian: expected a loss that torch can differentiate twice, but it says: "
                f"{str(error).strip().partition(chr(10))[0]:.300}; choose tuner.curvature=gradient-norm"
            ) from error
        if found is None or found[0] == 0.0:
            self._direction = None
        return found

    def distance(self) -> float | None:
        """Search for the least loss of the step just computed along −g, at x − s g/‖g‖; return that length s, above 0.

        On a quadratic of Hessian H, s = ‖g‖ gᵀg/gᵀHg: where all curvatures are h, the distance ‖g‖/h to the optimum x*.
        Where they differ it is a bound from below: with ⟨·⟩ the mean over eigenvectors, of weights gᵢ²/‖g‖²,

            ‖x − x*‖/‖g‖ = √⟨h⁻²⟩ ≥ ⟨h⁻¹⟩ ≥ 1/⟨h⟩ = s/‖g‖ ≥ 1/h_max.

        Both g and the loss are of the minibatch, so x* is the minibatch's optimum, and weight decay has no part in it.

        At most `worker.line_search.MOST` forward passes with the batch, random numbers and buffers of the step; they
        leave parameters, gradient and buffers as they are. Of several accumulated batches the loss is that of the
        last one. A search begins at the length that the one before found. None where no minimum is bracketed; TaskError
        and RuntimeError as for `compute` and `curvature`.
        """
        model, step = self._model, self._next_step - 1
        batch, state = self._just_computed("distance")
        slope = float(model.gradient.norm())
        if not 0.0 < slope < math.inf:
            return None
        origin, direction = model.vector.clone(), model.gradient / -slope

        def loss(length: float) -> float:
            torch.add(origin, direction, alpha=length, out=model.vector)
            self._seed(step)
            with model.buffers_kept(), UserCode(f"the task's loss, at step {step}"), autocast(self.task, self.device):
                return float(self._loss(batch, state)[0].detach())

        try:
            found, length = line_minimum(loss, slope, self._length)
        finally:
            model.vector.copy_(origin)
        self._length = length if 0.0 < length < math.inf else None
        return found

    def buffers(self) -> NDArray[np.float32]:
        """Return a copy of the model's buffers (BatchNorm statistics), float32 [B]."""
        self._model.lend(self._own)
        return self.layout.flatten_buffers(self._model.module).numpy()

    def load_buffers(self, values: NDArray[np.float32] | Tensor) -> None:
        """Start from these buffers [B], say the server's average, in place of those the model was built with."""
        self._model.lend(self._own)
        self.layout.load_buffers(self._model.module, as_tensor(values, self.layout.buffer_size, "buffers"))

    def _just_computed(self, what: str) -> tuple[Any, Any]:
        """The last batch of the step just computed, and the recurrent state it was computed from."""
        if self._model.batch is None or self._model.batch[0] is not self:
            raise RuntimeError(f"expected compute() of this gradient right before {what}(), got that of another")
        _, batch, state = self._model.batch
        return batch, state

    def _seed(self, step: int) -> None:
        seed = seed_of("gradient", self.shard.seed, self.shard.rank, step)
        # `torch.manual_seed` also asks for every kind of device, which takes longer than a small gradient.
        (torch.default_generator if self.device.type == "cpu" else torch).manual_seed(seed)

    def _accumulate(self, step: int) -> tuple[Tensor, int]:
        task, count = self.task, self.task.accumulate
        state, restarted = self._state, False
        if task.state is not None and step != self._next_step:
            state, restarted = self._fresh_state(task.state, step), True
        stream = self._stream(step)
        total, examples = torch.zeros((), device=self.device), 0
        for _ in range(count):
            batch = self._draw(stream, step)
            examples += count_examples(batch)
            with UserCode(f"the task's loss, at step {step}"):
                batch = move_batch(batch, self.device, task.channels_last)
                self._model.batch = (self, batch, state)
                with autocast(task, self.device):
                    loss, state = self._loss(batch, state)
                _check(loss)
                loss = loss / count if count > 1 else loss
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self._batches, self._next_step = stream, step + 1
        self._state, self.restarted = state, restarted
        return total, examples

    def _loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        """Return the loss and the next state, cut off from the past: back-propagation ends at this batch's start."""
        if self.task.state is None:
            return self.task.loss(self._model.module, batch), None
        result = self.task.loss(self._model.module, batch, state)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise TaskError(
                f"the task's loss returned a {type(result).__name__}, expected the pair (loss, next state) "
                "because the task has a `state`"
            )
        return result[0], map_tensors(result[1], Tensor.detach)

    def _fresh_state(self, build: Callable[[nn.Module], Any], step: int) -> Any:
        with UserCode(f"the task's state, at step {step}"), torch.no_grad():
            return move_batch(build(self._model.module), self.device, False)

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
