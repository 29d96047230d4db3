"""How fast a controller may rise: as was measured up to a mean staleness of nineteen, then ever slower."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from tuner.both import FASTEST_DOWN, FASTEST_UP, Both
from tuner.dead_time import BORNE, haste
from tuner.distance import GROWTH, LearntDistance
from tuner.first_distance import INITIAL
from tuner.target import Decision


def test_up_to_twenty_workers_in_turn_nothing_is_held_back() -> None:
    assert [haste(staleness) for staleness in (0.0, 3.0, 15.0, 19.0)] == [1.0] * 4


@pytest.mark.parametrize("staleness", [31.0, 63.0, 1023.0])
def test_what_rises_before_anything_shows_becomes_no_more_with_more_staleness(staleness: float) -> None:
    assert haste(staleness) * (1.0 + staleness) < BORNE
    assert haste(staleness) == pytest.approx((20.0 / (1.0 + staleness)) ** 1.5, rel=1e-12)


@pytest.mark.parametrize("workers", [16, 64])
def test_the_learning_rate_rises_in_that_measure_and_falls_as_fast_as_ever(workers: int) -> None:
    loop = Both(-0.9, 0.9)
    for _ in range(600):
        loop.weigh(workers - 1, None)
    before = math.log(loop.factor)
    loop.weigh(workers - 1, -1e9)
    up = math.log(loop.factor) - before
    assert up == pytest.approx(FASTEST_UP * haste(workers - 1), rel=1e-6)
    loop.weigh(workers - 1, 1e9)
    assert math.log(loop.factor) == pytest.approx(before + up - FASTEST_DOWN, rel=1e-6)


def floor_of(gradient: torch.Tensor, draw: Callable[[], int]) -> float:
    """The floor of α in parts of d_0, after 600 gradients with staleness as drawn, of hardly more than x_0."""
    target = LearntDistance(len(gradient), momentum=0.8, updates=10**9)
    for t in range(600):
        target.hear(1.0, draw())
        target.look(slice(0, len(gradient)), gradient, torch.ones(len(gradient)) - (1e-3 * gradient if t else 0.0))
        floor = target.decide().floor
        target.absorb(slice(0, len(gradient)), gradient)
    return floor / target.distance


FELT, TURNING = torch.ones(8), torch.tensor([1.0, -1.0] * 4)  # the second is at right angles to x_0: its scale is free


@pytest.mark.parametrize(("workers", "part"), [(1, 1.0), (16, 1.0), (20, 1.0), (32, 20 / 32), (128, 20 / 128)])
def test_what_staleness_does_not_lower_is_lowered_beyond_twenty_in_turn(workers: int, part: float) -> None:
    loop = Both(-0.9, 0.9)
    for _ in range(600):
        loop.weigh(workers - 1, None)
    assert loop.rate(0.1, 0.1) == pytest.approx(0.1 * part, rel=1e-9)
    assert floor_of(FELT, lambda: workers - 1) == pytest.approx(1.0, rel=1e-6)


def grown(gradient: torch.Tensor, workers: int) -> tuple[LearntDistance, torch.Tensor, float]:
    """A target whose gradients have always pointed the same way, so that d grew; where it has come to, and d_0."""
    target, x, first = LearntDistance(8, momentum=0.8, updates=10**9), [torch.ones(8)], 0.0
    for t in range(400):
        decision = advance(target, gradient, x[max(0, t - workers + 1)], workers)
        first = first if t else target.distance
        x.append(x[-1] - decision.learning_rate * gradient)
    assert target.distance > 2 * first
    return target, x[-1], first


def advance(target: LearntDistance, gradient: torch.Tensor, origin: torch.Tensor, workers: int) -> Decision:
    target.hear(1.0, workers - 1)
    target.look(slice(0, 8), gradient, origin)
    decision = target.decide()
    target.absorb(slice(0, 8), gradient)
    return decision


@pytest.mark.parametrize("workers", [1, 16])
def test_a_layer_whose_scale_does_not_matter_keeps_what_it_has_learnt_another_what_it_started_with(
    workers: int,
) -> None:
    felt, x, first = grown(FELT, workers)
    assert advance(felt, FELT, x, workers).floor == pytest.approx(first, rel=1e-6)
    turning, x, _ = grown(TURNING, workers)
    decision = advance(turning, TURNING, x, workers)
    assert decision.floor == pytest.approx(decision.learning_rate, rel=1e-6)


def test_without_order_there_are_fresh_gradients_and_it_is_not() -> None:
    loop, draw = Both(-0.9, 0.9), random.Random(0)
    for _ in range(600):
        loop.weigh(min(int(draw.expovariate(1 / 63)), 600), None)
    assert 0.05 < loop.freshness < 0.15
    assert loop.rate(0.1, 0.1) == 0.1


def test_which_layers_these_are_outlives_a_restart() -> None:
    one, x, first = grown(TURNING, 16)
    other = LearntDistance(8, momentum=0.8, updates=10**9)
    other.load_state_dict(one.state_dict())
    floors = [advance(target, TURNING, x, 16).floor for target in (one, other)]
    assert floors[0] == floors[1] > 2 * first


@pytest.mark.parametrize("workers", [1, 16, 64])
def test_the_estimate_of_a_far_optimum_grows_in_that_measure(workers: int) -> None:
    size, staleness = 8, workers - 1
    target, x, seen = LearntDistance(size, momentum=0.8, updates=10**9), [torch.zeros(size)], []
    for t in range(400):
        target.hear(1.0, staleness)
        target.look(slice(0, size), -torch.ones(size), x[max(0, t - staleness)])
        step = target.decide().learning_rate
        target.absorb(slice(0, size), -torch.ones(size))
        x.append(x[-1] + step)
        seen.append(target.distance)
    assert seen[0] == INITIAL
    most = max(b / a for a, b in pairwise(seen)) - 1.0
    assert most == pytest.approx(GROWTH * haste(staleness), rel=1e-6)
