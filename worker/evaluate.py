"""Runs the task's own evaluation on any version of the parameters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from psserver.errors import TaskError
from worker.layout import Layout, as_tensor
from worker.model import autocast, build_model, compile_forward
from worker.statistics import renew_statistics
from worker.task import Task
from worker.usercode import UserCode


class Evaluator:
    """A model of the task, built once, into which versions are loaded and evaluated.

    seed:       that of the run; constants that the model function draws follow it.
    statistics: training batches over which BatchNorm's statistics are computed at each version; 0 takes those given.
    """

    def __init__(self, task: Task, device: torch.device, seed: int = 0, statistics: int = 0) -> None:
        self._task, self._device, self._seed, self._statistics = task, device, seed, statistics
        self._model = build_model(task, seed, device).eval()
        self.layout = Layout.of(self._model)
        self._vector = torch.empty(self.layout.size, device=device)
        self.layout.attach(self._model, self._vector, None)
        if task.compile:
            compile_forward(self._model)

    def evaluate(
        self,
        parameters: NDArray[np.float32] | Tensor,
        buffers: NDArray[np.float32] | Tensor | None = None,
    ) -> dict[str, float]:
        """Return the task's named numbers at `parameters` [N] with `buffers` [B]; {} if the task has no `evaluate`.

        Deterministic: torch's generators are seeded anew each time. Raises `TaskError` if the user's
        function fails or returns anything but names and numbers, `LayoutError` if a vector does not fit.
        """
        if self._task.evaluate is None:
            return {}
        self.load(parameters, buffers)
        torch.manual_seed(0)
        with UserCode("the task's evaluate"), torch.no_grad(), autocast(self._task, self._device):
            return _numbers(self._task.evaluate(self._model))

    def load(
        self, parameters: NDArray[np.float32] | Tensor, buffers: NDArray[np.float32] | Tensor | None = None
    ) -> nn.Module:
        """The model at that version, in eval mode, with the statistics it is evaluated with."""
        self._vector.copy_(as_tensor(parameters, self.layout.size, "parameters"))
        if buffers is not None and self.layout.buffer_size:
            self.layout.load_buffers(self._model, as_tensor(buffers, self.layout.buffer_size, "buffers"))
        renew_statistics(self._model, self._task, self._seed, self._statistics, self._device)
        return self._model.eval()


def _numbers(result: object) -> dict[str, float]:
    if not isinstance(result, Mapping):
        raise TaskError(
            f"the task's evaluate returned a {type(result).__name__}, expected named numbers such as "
            '{"loss": 0.3, "accuracy": 0.9}'
        )
    try:
        return {str(name): float(value) for name, value in result.items()}
    except (TypeError, ValueError) as error:
        raise TaskError(f"the task's evaluate returned something that is no number: {error}") from error
