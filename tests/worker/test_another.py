"""Virtual workers: many gradients that share one model, each with buffers and a recurrent state of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from psserver.errors import ConfigurationError, TaskError
from worker.gradient import Gradient
from worker.task import Shard, Task
from worker.zoo.stream import generator

CPU = torch.device("cpu")
WORKERS = 3


class Recurrent(nn.Module):
    """Everything a worker may keep: BatchNorm of both kinds, a buffer put anew each time, a state, and dropout."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)
        self.exponential = nn.BatchNorm1d(4)
        self.cumulative = nn.BatchNorm1d(4, momentum=None)
        self.out = nn.Linear(4, 2)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(x, state)
        self.mean = 0.9 * self.mean + state.detach().mean(0)
        hidden = self.cumulative(self.exponential(state)) + self.mean
        return self.out(functional.dropout(hidden)), state


def task(accumulate: int = 1) -> Task:
    def batches(shard: Shard) -> Iterator[Tensor]:
        position = shard.start
        while True:
            yield torch.randn(6, 3, generator=generator(shard.seed, shard.rank, position))
            position += 1

    def loss(module: nn.Module, batch: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        out, after = module(batch, state[0])
        return out.square().mean(), [after]

    return Task(Recurrent, loss, batches, accumulate=accumulate, state=lambda module: [torch.randn(6, 4)])


def shard(rank: int) -> Shard:
    return Shard(rank, WORKERS, seed=5)


def at(source: Gradient, step: int) -> list[Any]:
    out = torch.empty(source.layout.size)
    loss, _ = source.compute(source.initial, out, step)
    return [loss, source.restarted, out.tolist()]


ORDER = [(0, 1), (1, 1), (1, 2), (0, 2), (2, 1), (2, 2), (2, 3), (0, 3), (1, 7), (1, 8), (0, 3), (1, 9)]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_shared_model_gives_the_same_bits_as_one_model_each(accumulate: int) -> None:
    first = Gradient(task(accumulate), shard(0), CPU)
    sharing = [first, first.another(shard(1)), first.another(shard(2))]
    alone = [Gradient(task(accumulate), shard(rank), CPU) for rank in range(WORKERS)]
    for rank, step in ORDER:
        assert at(sharing[rank], step) == at(alone[rank], step)
        assert sharing[rank].buffers().tolist() == alone[rank].buffers().tolist()


def test_each_worker_starts_from_the_buffers_it_is_given() -> None:
    first = Gradient(task(), shard(0), CPU)
    second, third = first.another(shard(1)), first.another(shard(2))
    given = torch.linspace(1, 2, first.layout.buffer_size)
    second.load_buffers(given)
    at(first, 1)
    assert second.buffers().tolist() == given.tolist()
    assert third.buffers().tolist() == Gradient(task(), shard(2), CPU).buffers().tolist()


def test_the_state_goes_on_from_step_to_step_and_begins_anew_out_of_sequence() -> None:
    first = Gradient(task(), shard(0), CPU)
    restarted = [at(first, step)[1] for step in (4, 5, 6, 6, 7, 9)]
    assert restarted == [True, False, False, True, False, True]
    assert at(Gradient(task(), shard(0), CPU), 5) != at(first, 5)


def test_accumulated_batches_hand_the_state_on() -> None:
    seen: list[tuple[float, float]] = []

    def loss(module: nn.Module, batch: Tensor, state: tuple[Tensor, int]) -> tuple[Tensor, tuple[Tensor, int]]:
        assert not state[0].requires_grad
        seen.append((state[0].item(), state[1]))
        return module(batch).mean() + state[0], (state[0] + 1 + 0 * module.get_parameter("bias").sum(), state[1])

    counting = replace(
        task(), model=lambda: nn.Linear(3, 1), loss=loss, accumulate=2, state=lambda module: (torch.zeros(()), 7)
    )
    source = Gradient(counting, shard(0), CPU)
    for step in (1, 2, 1):
        at(source, step)
    assert seen == [(0, 7), (1, 7), (2, 7), (3, 7), (0, 7), (1, 7)]


def test_back_propagation_ends_where_the_batch_began() -> None:
    def loss(module: nn.Module, batch: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        after = state * module.get_parameter("weight").sum()
        return after.sum(), after

    source = Gradient(
        replace(task(), model=lambda: nn.Linear(2, 1, bias=False), loss=loss, state=lambda m: torch.ones(1)),
        shard(0),
        CPU,
    )
    weight, out = torch.tensor([2.0, 1.0]), torch.empty(2)
    for step in (1, 2, 3):
        value, _ = source.compute(weight, out, step)
        assert (value, out.tolist()) == (3.0**step, [3.0 ** (step - 1)] * 2)  # not step · 3^(step − 1)


def test_a_step_that_failed_is_computed_again_from_the_state_before_it() -> None:
    failures = [False, True, False, False]

    def loss(module: nn.Module, batch: Tensor, state: list[Tensor]) -> Any:
        if failures.pop(0):
            raise OSError("a passing fault")
        return plain.loss(module, batch, state)

    plain = replace(task(), model=lambda: WithoutBuffers())
    source, whole = Gradient(replace(plain, loss=loss), shard(0), CPU), Gradient(plain, shard(0), CPU)
    assert at(source, 1) == at(whole, 1)
    with pytest.raises(TaskError, match="a passing fault"):
        at(source, 2)
    assert at(source, 2) == at(whole, 2)


class WithoutBuffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(x, state)
        return self.out(state), state


def test_a_thousand_workers_keep_one_model_between_them() -> None:
    first = Gradient(replace(task(), model=WithoutBuffers), shard(0), CPU)
    many = [first.another(replace(shard(rank), rank=rank)) for rank in range(1000)]
    assert len({id(vars(each)["_model"]) for each in many}) == 1
    assert all(vars(each)["_own"].saved is None for each in many)
    assert len({tuple(at(each, 1)[2]) for each in many[::250]}) == 4


def test_workers_of_another_seed_or_number_cannot_share() -> None:
    first = Gradient(task(), shard(0), CPU)
    for wrong in (Shard(1, WORKERS, seed=6), Shard(1, 4, seed=5)):
        with pytest.raises(ConfigurationError, match="the same seed and number of workers: expected 5 and 3"):
            first.another(wrong)


def test_a_loss_without_its_state_is_the_tasks_error() -> None:
    alone = replace(task(), loss=lambda module, batch, state: module(batch, state[0])[0].mean())
    with pytest.raises(TaskError, match=r"returned a Tensor, expected the pair \(loss, next state\)"):
        at(Gradient(alone, shard(0), CPU), 1)


def test_a_buffer_that_changes_its_shape_is_the_tasks_error() -> None:
    def loss(module: nn.Module, batch: Tensor, state: list[Tensor]) -> Any:
        out, after = module(batch, state[0])
        module.register_buffer("mean", torch.zeros(5))
        return out.mean(), [after]

    first = Gradient(replace(task(), loss=loss), shard(0), CPU)
    at(first, 1)
    with pytest.raises(TaskError, match=r"buffer 'mean': expected torch.float32 of shape \[4\].*got .*\[5\]"):
        at(first.another(shard(1)), 1)
