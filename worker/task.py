"""What a user supplies: a `Task` (model, loss, data), and the `Shard` a worker's batches are drawn for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Shard:
    """Which batches a worker draws: the `start`-th and later ones of worker `rank` of `workers`, for `seed`.

    A batch stream must be a pure function of (rank, seed, position), so that a resumed run continues
    with batch `start` and a replay draws the same ones.
    """

    rank: int
    workers: int
    seed: int
    start: int = 0


@dataclass(frozen=True)
class Task:
    """A training problem.

    model:      builds the module; called once a process, after `torch.manual_seed(seed)`.
    loss:       (module, batch) -> scalar tensor, the mean over the batch; of a task with a `state`,
                (module, batch, state) -> (scalar tensor, next state).
    batches:    shard -> endless iterator of batches (tensors, or any nest of tuples, lists and dicts of tensors).
    evaluate:   module -> named numbers, e.g. {"loss": .., "accuracy": ..}; the module is in eval mode, and
                its first entry named "accuracy", else "loss", is what `best_eval` reports.
    device:     "cpu", "cuda", "cuda:1"; None leaves the choice to the command line.
    autocast:   dtype of automatic mixed precision, e.g. torch.bfloat16; None for none.
    accumulate: batches averaged into one gradient.
    channels_last: give image batches to the model in channels-last memory format.
    compile:    run the model through `torch.compile`.
    state:      module -> the recurrent state a worker starts with, any nest of tuples, lists and dicts of tensors.
                Each worker keeps its own from step to step, detached: back-propagation is truncated at the start of a
                batch. It starts anew when the worker does. None: the task has no state.
    """

    model: Callable[[], nn.Module]
    loss: Callable[..., Any]
    batches: Callable[[Shard], Iterator[Any]]
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None
    device: str | None = None
    autocast: torch.dtype | None = None
    accumulate: int = 1
    channels_last: bool = False
    compile: bool = False
    state: Callable[[nn.Module], Any] | None = None
