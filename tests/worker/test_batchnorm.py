"""BatchNorm's statistics under many workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from worker.evaluate import Evaluator
from worker.gradient import Gradient
from worker.task import Shard, Task


@pytest.mark.parametrize("workers", [1, 16])
def test_batchnorm_forgets_in_one_of_m_workers_steps_what_one_worker_forgets_in_m(workers: int) -> None:
    task = Task(
        model=lambda: nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Linear(2, 1)),
        loss=lambda model, batch: model(batch).square().mean(),
        batches=lambda shard: iter(lambda: torch.full((4, 2), 10.0), None),
    )
    gradient = Gradient(task, Shard(0, workers, 0), torch.device("cpu"))
    gradient.compute(gradient.initial, torch.empty(gradient.layout.size), 1)
    np.testing.assert_allclose(gradient.buffers()[:2], 10.0 * (1 - 0.9**workers), rtol=1e-6)


def test_statistics_are_computed_anew_at_the_version_that_is_evaluated() -> None:
    inputs = [torch.full((4, 2), float(k)) + torch.arange(4.0)[:, None] for k in range(3)]
    seen: list[torch.Tensor] = []

    def evaluate(module: nn.Module) -> dict[str, float]:
        assert not module.training
        seen.append(module.running_mean.clone())
        return {"loss": 0.0}

    task = Task(lambda: nn.BatchNorm1d(2), lambda m, b: m(b).sum(), lambda shard: iter(inputs[shard.start :]), evaluate)
    weights, stale = np.float32([1, 1, 0, 0]), np.float32([9, 9, 1, 1])
    for statistics, expected in ((0, 9.0), (1, 1.5), (3, 2.5)):
        evaluator = Evaluator(task, torch.device("cpu"), statistics=statistics)
        evaluator.evaluate(weights, stale)
        assert seen[-1].tolist() == [expected, expected]
    module = evaluator.load(weights, stale)
    assert isinstance(module, nn.BatchNorm1d)
    assert module.momentum == 0.1
    assert not module.training
