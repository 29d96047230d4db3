"""BatchNorm statistics of one version: computed over training batches at the very parameters that are evaluated."""

from __future__ import annotations

from itertools import islice

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from worker.model import autocast, move_batch
from worker.task import Shard, Task
from worker.usercode import UserCode


def renew_statistics(model: nn.Module, task: Task, seed: int, batches: int, device: torch.device) -> None:
    """Replace the running statistics of BatchNorm layers by the mean over `batches` training batches, run forward.

    What workers report was computed some tens of updates ago, at parameters that have moved since; statistics and
    parameters of different versions do not fit each other. Deterministic: always the first batches of rank 0 of one
    worker, torch's generators seeded anew. Other buffers stay as they are. A model without BatchNorm is left alone.
    Source: Wu and Johnson (2021), "precise BatchNorm". Raises TaskError when the user's code fails.
    """
    norms = [m for m in model.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
    if not norms or not batches:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
    model.train()
    torch.manual_seed(seed)
    with UserCode("the task's loss, for BatchNorm statistics"), torch.no_grad(), autocast(task, device):
        state = task.state(model) if task.state is not None else None
        for batch in islice(task.batches(Shard(0, 1, seed)), batches):
            moved = move_batch(batch, device, task.channels_last)
            if task.state is None:
                task.loss(model, moved)
            else:
                _, state = task.loss(model, moved, state)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
