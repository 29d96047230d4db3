"""BatchNorm's statistics under many workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

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
