"""The line search: exact on parabolas, few passes, and without a trace in gradient, parameters or buffers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.worker.test_curvature import stochastic
from worker.gradient import Gradient
from worker.line_search import MOST, line_minimum
from worker.task import Shard, Task
from worker.zoo import digits
from worker.zoo.quadratic import quadratic

CPU = torch.device("cpu")


def computed(task: Task, step: int = 1) -> tuple[Gradient, torch.Tensor]:
    source = Gradient(task, Shard(0, 1, 0), CPU)
    out = torch.empty(source.layout.size)
    source.compute(source.initial, out, step)
    return source, out


def counted(loss: Callable[[float], float]) -> tuple[Callable[[float], float], list[float]]:
    asked: list[float] = []

    def counting(length: float) -> float:
        asked.append(length)
        return loss(length)

    return counting, asked


@pytest.mark.parametrize("start", [0.1, 0.5, 2.9, 3.0, 3.1, 40.0, None])
def test_a_parabola_is_exact_from_any_start_within_reach(start: float | None) -> None:
    loss, asked = counted(lambda s: 0.25 * (s - 3.0) ** 2 - 1.0)
    found, following = line_minimum(loss, 1.5, start)
    assert found == pytest.approx(3.0, rel=1e-12)
    assert following == found
    assert len(asked) <= MOST


def test_it_takes_three_losses_where_the_start_is_the_answer_of_the_time_before() -> None:
    for least in (2.0, 2.7, 1.6):
        loss, asked = counted(lambda s, least=least: (s - least) ** 2)
        assert line_minimum(loss, 2 * least, 2.0)[0] == pytest.approx(least)
        assert len(asked) <= 4
    assert len(asked) == 3


def test_the_first_length_is_the_answer_itself_where_the_least_loss_is_0() -> None:
    loss, asked = counted(lambda s: 0.5 * 4.0 * (s - 0.3) ** 2)
    assert line_minimum(loss, 4.0 * 0.3, None)[0] == pytest.approx(0.3)
    assert asked[1] == pytest.approx(0.3)


@pytest.mark.parametrize("power", [1.5, 3.0, 4.0])
def test_what_is_no_parabola_is_found_within_its_bracket(power: float) -> None:
    found, _ = line_minimum(lambda s: abs(s - 5.0) ** power, 1.0, 1.0)
    assert found == pytest.approx(5.0, rel=0.3)


def test_a_loss_that_always_falls_has_no_minimum_and_the_search_goes_on_from_the_last_length() -> None:
    loss, asked = counted(lambda s: -s)
    assert line_minimum(loss, 1.0, 1.0) == (None, 2.0 ** (MOST - 2))
    assert len(asked) == MOST
    loss, asked = counted(lambda s: s)
    assert line_minimum(loss, 1.0, 1.0) == (None, 0.5 ** (MOST - 2))
    assert len(asked) == MOST


@pytest.mark.parametrize("wrong", [math.inf, math.nan])
def test_what_is_not_finite_counts_as_a_rise(wrong: float) -> None:
    assert line_minimum(lambda s: wrong if s > 1.5 else -s, 1.0, 1.0)[0] == 1.0
    assert line_minimum(lambda s: wrong if s > 1.5 else -s, 1.0, 6.0)[0] == 1.5
    assert line_minimum(lambda s: wrong, 1.0, 1.0)[0] is None


def test_where_all_curvatures_are_equal_it_is_the_distance_to_the_optimum() -> None:
    source, _ = computed(quadratic(size=50, h_min=4.0, h_max=4.0, noise=0.0))
    assert source.distance() == pytest.approx(math.sqrt(50), rel=1e-5)


def test_where_they_differ_it_is_the_line_minimum_and_below_the_distance() -> None:
    task = quadratic(size=50, h_min=0.01, h_max=4.0, noise=0.2)
    source, g = computed(task)
    h = task.model().get_buffer("h")
    found = source.distance()
    assert found == pytest.approx(float(g.norm() * g.dot(g) / g.dot(h * g)), rel=1e-4)
    assert float(g.norm()) / 4.0 < found < float((g / h).norm())  # g = H (x − x*), x* the minibatch's


def test_gradients_and_buffers_are_the_same_bits_with_and_without_searching() -> None:
    plain, searching = (Gradient(stochastic(), Shard(0, 2, 1), CPU) for _ in range(2))
    outs = [torch.empty(plain.layout.size) for _ in range(2)]
    for step in range(1, 4):
        losses = [
            source.compute(plain.initial, out, step)[0] for source, out in zip((plain, searching), outs, strict=True)
        ]
        assert (searching.distance() or 0.0) > 0.0
        assert losses[0] == losses[1]
        assert torch.equal(outs[0], outs[1])
        assert (plain.buffers() == searching.buffers()).all()
    assert plain.curvature() == searching.curvature(), "the parameters are where they were"


def test_virtual_workers_search_as_if_alone_and_only_right_after_their_own_gradient() -> None:
    first = Gradient(stochastic(), Shard(0, 2, 1), CPU)
    sharing = [first, first.another(Shard(1, 2, 1))]
    alone = [Gradient(stochastic(), Shard(rank, 2, 1), CPU) for rank in range(2)]
    out = torch.empty(first.layout.size)
    for rank, step in [(0, 1), (1, 1), (1, 2), (0, 2)]:
        found = []
        for source in (sharing[rank], alone[rank]):
            source.compute(first.initial, out, step)
            found.append(source.distance())
        assert found[0] == found[1]
        assert found[0] is not None
    first.compute(first.initial, out, 3)
    with pytest.raises(RuntimeError, match=r"expected compute.*before distance"):
        sharing[1].distance()


def test_the_ready_made_tasks_can_be_searched(small_task: Task) -> None:
    assert 0.0 < (computed(small_task)[0].distance() or 0.0) < math.inf


def test_a_gradient_of_zero_points_nowhere() -> None:
    def model() -> nn.Module:
        return nn.Linear(64, 10)

    flat = replace(digits.mlp(), model=model, loss=lambda module, batch: 0.0 * module(batch[0]).sum())
    assert computed(flat)[0].distance() is None
