"""Which examples go into which batch: index streams that are pure functions of (seed, rank, position)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from psserver.errors import ConfigurationError
from worker.seeds import seed_of
from worker.task import Shard

Sharding = Literal["sample", "shard"]


def generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator of its own, seeded by `key`."""
    return torch.Generator().manual_seed(seed_of(*key))


def batch_indices(
    shard: Shard, examples: int, batch: int, sharding: Sharding = "sample"
) -> Iterator[tuple[int, Tensor]]:
    """Yield (position, int64 [batch]) from position `shard.start` on, without end.

    "sample": each rank runs through all examples in an order of its own, new every epoch.
    "shard":  all ranks share one order, new every epoch, of which rank r takes every `workers`-th
              example from the r-th on; no example is drawn twice an epoch.
    The last incomplete batch of an epoch is left out.
    """
    if sharding not in ("sample", "shard"):
        raise ConfigurationError(f"sharding: expected 'sample' or 'shard', got {sharding!r}")
    shared = sharding == "shard"
    own = examples // shard.workers if shared else examples
    if not 1 <= batch <= own:
        of = f" of {examples} shared by {shard.workers} workers" if shared else ""
        raise ConfigurationError(f"batch: expected between 1 and the {own} examples{of}, got {batch}")
    return _endless(shard, examples, batch, own // batch, shared)


def _endless(shard: Shard, examples: int, batch: int, an_epoch: int, shared: bool) -> Iterator[tuple[int, Tensor]]:
    position = shard.start
    while True:
        epoch = position // an_epoch
        who = -1 if shared else shard.rank
        order = torch.randperm(examples, generator=generator("order", shard.seed, who, epoch))
        if shared:
            order = order[shard.rank % shard.workers :: shard.workers]
        for k in range(position % an_epoch, an_epoch):
            yield position, order[k * batch : (k + 1) * batch]
            position += 1
