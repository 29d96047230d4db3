"""The task's own evaluation, at any version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from psserver.errors import LayoutError, TaskError
from worker.evaluate import Evaluator
from worker.gradient import Gradient
from worker.task import Shard, Task
from worker.zoo import digits, quadratic

CPU = torch.device("cpu")


def test_each_version_is_evaluated_on_its_own_parameters() -> None:
    evaluator = Evaluator(quadratic.quadratic(size=4, h_min=1, h_max=1), CPU)
    for value in (1.0, 3.0):
        numbers = evaluator.evaluate(np.full(4, value, np.float32))
        assert numbers == pytest.approx({"loss": 2 * value**2, "distance": 2 * value})


def test_batchnorm_statistics_given_are_the_ones_used() -> None:
    seen: list[torch.Tensor] = []

    def evaluate(module: nn.Module) -> Mapping[str, float]:
        assert not module.training
        seen.append(module(torch.ones(1, 2)))
        return {"loss": 0.0}

    task = Task(model=lambda: nn.BatchNorm1d(2), loss=lambda m, b: m(b).sum(), batches=iter, evaluate=evaluate)
    evaluator = Evaluator(task, CPU)
    weights = np.float32([1, 1, 0, 0])
    evaluator.evaluate(weights, np.float32([1, 0, 1, 0.25]))
    torch.testing.assert_close(seen[0], torch.tensor([[0.0, 2.0]]), atol=1e-4, rtol=1e-4)


def test_it_agrees_with_the_worker_that_trained() -> None:
    task = digits.mlp()
    source = Gradient(task, Shard(0, 1, 0), CPU)
    direct = task.evaluate(task_model(task))
    assert Evaluator(task, CPU).evaluate(source.initial) == pytest.approx(direct)


def task_model(task: Task) -> nn.Module:
    torch.manual_seed(0)
    return task.model()


def test_a_task_without_evaluation_gives_nothing() -> None:
    assert Evaluator(replace(digits.mlp(), evaluate=None), CPU).evaluate(np.zeros(9)) == {}


@pytest.mark.parametrize("result", [3.0, None, {"loss": "low"}])
def test_anything_but_named_numbers_is_the_tasks_error(result: Any) -> None:
    evaluator = Evaluator(replace(digits.mlp(), evaluate=lambda m: result), CPU)
    with pytest.raises(TaskError, match="task's evaluate returned"):
        evaluator.evaluate(np.zeros(evaluator.layout.size, np.float32))


def test_a_vector_of_another_size_is_refused() -> None:
    with pytest.raises(LayoutError, match="expected a vector of 8970 elements"):
        Evaluator(digits.mlp(), CPU).evaluate(np.zeros(5, np.float32))
