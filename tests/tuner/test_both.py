"""The loop with two actuators: known answers, both ends of the learning rate, and what the state holds."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from tuner import TunerOptions, build
from tuner.both import EXCESS, FASTEST_DOWN, FASTEST_UP, LOWEST, LOWEST_MOMENTUM, SPEED, Both

TARGET = 0.9


def settled(workers: int, excess: float | None = None, pushes: int = 600) -> Both:
    """After so many pushes of M workers in turn."""
    loop = Both(-0.9, 0.999)
    for _ in range(pushes):
        loop.weigh(workers - 1, excess)
    return loop


@pytest.mark.parametrize("target", [-0.5, 0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("excess", [None, 0.0, 5.0, -5.0])
def test_without_staleness_it_is_the_target_itself(target: float, excess: float | None) -> None:
    loop = settled(1, excess)
    assert (loop.momentum(target), loop.clamped) == (target, None)
    assert (loop.freshness, loop.factor, loop.rate(0.3, 0.001)) == (1.0, 1.0, 0.3)


def test_before_any_push_nothing_is_stale() -> None:
    loop = Both(-0.9, 0.999)
    assert (loop.momentum(TARGET), loop.rate(0.3, 0.0)) == (TARGET, 0.3)


@pytest.mark.parametrize("workers", [2, 4, 16, 64])
def test_of_workers_in_turn_the_learning_rate_is_divided_by_their_number_at_first(workers: int) -> None:
    loop = settled(workers)
    assert loop.freshness == pytest.approx(1 / workers, rel=1e-12)
    assert loop.factor == pytest.approx(1 / workers, rel=1e-12)


def test_of_workers_without_order_the_freshness_is_the_mean_over_a_geometric_staleness() -> None:
    workers, draws = 8, random.Random(0)
    latest, loop, seen = [0] * workers, Both(-0.9, 0.999), []
    for version in range(20_000):
        worker = draws.randrange(workers)
        loop.weigh(version - latest[worker], None)
        latest[worker] = version + 1
        seen.append(loop.freshness)
    assert sum(seen[200:]) / len(seen[200:]) == pytest.approx(math.log(workers) / (workers - 1), rel=0.03)


@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize("target", [0.9, 0.95])
def test_the_whole_delay_has_the_mean_square_of_the_targets_own(target: float, workers: int) -> None:
    """Sums over the kernel itself: staleness τ, then (1 − μ) μᵏ at k further updates."""
    loop = settled(workers)
    momentum = loop.momentum(target)
    k = np.arange(5000)
    wanted = float(((1 - target) * target**k * k**2).sum())
    assert float(((1 - momentum) * momentum**k * (k + workers - 1) ** 2).sum()) == pytest.approx(wanted, rel=1e-6)
    assert loop.clamped is None
    own, lag = target / (1 - target), momentum / (1 - momentum)
    assert own - (workers - 1) < lag < own, "less is taken than the mean lag of staleness"


def test_staleness_that_differs_takes_more_momentum_than_as_much_that_does_not() -> None:
    even, uneven = settled(4), Both(-0.9, 0.999)
    for number in range(600):
        uneven.weigh((0, 6)[number % 2], None)
    assert uneven.momentum(0.8) < even.momentum(0.8) - 0.01


@pytest.mark.parametrize("target", [-0.9, -0.5, -0.34])
def test_a_target_below_zero_is_never_raised_by_staleness_but_to_the_clamp(target: float) -> None:
    loop = Both(-0.9, 0.999)
    loop.weigh(0, None)
    loop.weigh(1, None)
    assert loop.momentum(target) == max(target, LOWEST_MOMENTUM)


@pytest.mark.parametrize("workers", [15, 16, 1000])
def test_beyond_that_delay_it_clamps_at_a_momentum_just_below_zero_and_says_so(workers: int) -> None:
    loop = settled(workers)
    assert (loop.momentum(TARGET), loop.clamped) == (LOWEST_MOMENTUM, "low")
    assert LOWEST_MOMENTUM == -0.3


def test_the_users_clamp_holds_too() -> None:
    low, high = Both(-0.1, 0.999), Both(-0.9, 0.2)
    for _ in range(600):
        low.weigh(15, None)
        high.weigh(1, None)
    assert (low.momentum(TARGET), low.clamped) == (-0.1, "low")
    assert (high.momentum(TARGET), high.clamped) == (0.2, "high")
    for _ in range(5000):
        high.weigh(0, None)
    assert high.momentum(0.1) == pytest.approx(0.1, abs=1e-6)
    assert high.clamped is None


@pytest.mark.parametrize("workers", [2, 16])
def test_a_large_excess_lowers_the_learning_rate_as_fast_as_may_be_and_never_below_its_end(workers: int) -> None:
    loop = settled(workers)
    before = math.log(loop.factor)
    loop.weigh(workers - 1, 1e9)
    assert math.log(loop.factor) == pytest.approx(before - FASTEST_DOWN, rel=1e-9)
    for _ in range(500):
        loop.weigh(workers - 1, 1e9)
    assert loop.factor == pytest.approx(LOWEST / workers, rel=1e-12)


@pytest.mark.parametrize("workers", [2, 16])
def test_where_no_excess_is_measured_the_learning_rate_comes_back_whole_and_no_further(workers: int) -> None:
    loop = settled(workers)
    before = math.log(loop.factor)
    loop.weigh(workers - 1, EXCESS - 0.1)
    assert math.log(loop.factor) == pytest.approx(before + 0.1 * SPEED, rel=1e-9)
    loop.weigh(workers - 1, -1e9)
    assert math.log(loop.factor) == pytest.approx(before + 0.1 * SPEED + FASTEST_UP, rel=1e-9)
    for _ in range(500):
        loop.weigh(workers - 1, -1.0)
    assert loop.factor == pytest.approx(1.0, rel=1e-12)
    assert loop.rate(0.3, 0.0) == pytest.approx(0.3, rel=1e-12)


@pytest.mark.parametrize("excess", [-1.0, 1.0])
def test_it_leaves_either_end_with_the_first_opposite_error(excess: float) -> None:
    loop = settled(16, excess, 5000)
    at_the_end = loop.factor
    loop.weigh(15, EXCESS - math.copysign(0.1, excess))
    moved = loop.factor - at_the_end
    assert moved * excess > 0
    assert abs(math.log(loop.factor / at_the_end)) == pytest.approx(0.1 * SPEED, rel=1e-6)


def test_a_bearable_excess_and_one_that_is_not_known_leave_it_where_it_is() -> None:
    loop = settled(16)
    for excess in (EXCESS, None, math.nan, math.inf, -math.inf):
        before = loop.factor
        loop.weigh(15, excess)
        assert loop.factor == pytest.approx(before, rel=1e-12)


def test_the_excess_of_a_fresh_gradient_says_nothing() -> None:
    loop, other = settled(16), settled(16)
    loop.weigh(0, 1e9)
    other.weigh(0, None)
    assert loop.factor == other.factor


def test_when_staleness_ends_the_learning_rate_and_the_momentum_come_back() -> None:
    loop = settled(16, 1.0)
    for _ in range(2000):
        loop.weigh(0, None)
    assert loop.momentum(TARGET) == pytest.approx(TARGET, abs=1e-6)
    assert loop.factor <= 1.0
    low = loop.factor
    for _ in range(60):
        loop.weigh(1, 0.0)
    assert loop.factor > low


def test_the_floor_gives_way_to_measured_excess_only() -> None:
    loop = settled(16)
    assert loop.rate(0.016, 0.004) == pytest.approx(0.004), "staleness alone does not lower it"
    assert loop.rate(1.0, 0.004) == pytest.approx(1 / 16), "nor does it lower anything else"
    while loop.factor > LOWEST / 16 * 1.0001:
        loop.weigh(15, 1e9)
    assert loop.rate(0.016, 0.004) == pytest.approx(LOWEST * 0.004, rel=1e-3)
    risen = settled(16, -1.0)
    assert risen.rate(0.001, 0.004) == pytest.approx(0.004), "nor is it ever above itself"


def test_it_takes_the_excess_of_the_version_that_a_stale_gradient_was_computed_at() -> None:
    tuner = build(TunerOptions(target="constant", momentum=0.9, loop="both"), 4, 100, 0)
    heard: list[tuple[int, float | None]] = []
    tuner.loop.weigh = lambda staleness, excess: heard.append((staleness, excess))  # type: ignore[method-assign]
    tuner.estimator.excess = lambda version, applied: 0.25 + version  # type: ignore[attr-defined]
    tuner.record(0, torch.zeros(4))
    for version in range(1, 5):
        tuner.look(slice(0, 4), torch.ones(4))
        tuner.decide()
        tuner.absorb(slice(0, 4), torch.ones(4))
        tuner.record(version, torch.zeros(4))
        tuner.measure(max(0, version - 3), torch.ones(4))
    assert heard == [(0, None), (1, 0.25), (2, 0.25), (2, 1.25)]


def test_its_state_continues_bit_for_bit() -> None:
    draws = random.Random(3)
    first, second = Both(-0.9, 0.999), Both(-0.9, 0.999)
    for _ in range(70):
        first.weigh(draws.randrange(9), draws.gauss(0.2, 0.3))
    state = first.state_dict()
    second.load_state_dict(state)
    assert (second.freshness, second.factor) == (first.freshness, first.factor)
    for _ in range(50):
        staleness, excess = draws.randrange(9), draws.gauss(0.2, 0.3)
        for loop in (first, second):
            loop.weigh(staleness, excess)
        assert (first.momentum(TARGET), first.rate(0.1, 0.01)) == (second.momentum(TARGET), second.rate(0.1, 0.01))
    assert first.state_dict() == second.state_dict() != state
