"""The spread of delays: 1 in turn, from the first update on, M ln M/(M − 1) without order, 1 where all is fresh."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest

from tuner.beyond import FIRST, LOWEST, Beyond
from tuner.spread import Spread


def pushes(workers: int, count: int, *, quick: int = 0, seed: int = 1) -> Iterator[int]:
    """Staleness of each: in turn, or with a seed above 0 without order, some workers a hundred times as quick."""
    draws, held = random.Random(seed), [0] * workers
    weights = [100.0 if k < quick else 1.0 for k in range(workers)]
    for version in range(count):
        worker = draws.choices(range(workers), weights)[0] if seed else version % workers
        yield version - held[worker]
        held[worker] = version + 1


def after(staleness: Iterator[int]) -> Spread:
    spread = Spread()
    for tau in staleness:
        spread.update(tau)
    return spread


@pytest.mark.parametrize("workers", [1, 2, 16, 64])
def test_in_turn_it_is_one_and_the_first_round_says_nothing(workers: int) -> None:
    spread = Spread()
    for tau in pushes(workers, 300, seed=0):
        assert spread.update(tau) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("workers", [4, 16, 64])
def test_without_order_it_is_what_the_harmonic_mean_says(workers: int) -> None:
    found = [after(pushes(workers, 2000, seed=seed)).value for seed in range(1, 21)]
    assert sum(found) / 20 == pytest.approx(workers * math.log(workers) / (workers - 1), rel=0.1)


def test_where_nearly_all_gradients_are_fresh_it_is_near_one_again() -> None:
    assert after(pushes(16, 3000, quick=1)).value < 1.3


def test_before_anything_is_known_it_is_one() -> None:
    assert Spread().value == 1.0
    assert after(iter([0, 1, 2, 3])).value == 1.0, "all of them are of x_0"


def test_it_continues_bit_for_bit() -> None:
    first, second = after(pushes(16, 70)), Spread()
    second.load_state_dict(first.state_dict())
    for tau in (3, 0, 30, 7):
        assert first.update(tau) == second.update(tau)
    assert first.state_dict() == second.state_dict()


def used_up(excess: float | None) -> Beyond:
    loop = Beyond(-0.9, 0.999)
    for tau in pushes(16, 600):
        loop.momentum(0.8)
        loop.weigh(tau, excess)
    return loop


def test_without_order_the_learning_rate_starts_as_many_times_higher_and_ends_as_low() -> None:
    loop = used_up(None)
    spread = after(pushes(16, 600)).value
    assert loop.share == 1.0
    assert spread > 2.0
    assert loop.factor == pytest.approx(FIRST * spread * loop.freshness, rel=1e-9)
    lowest = used_up(1e9)
    assert lowest.factor == pytest.approx(LOWEST * lowest.freshness, rel=1e-9)


@pytest.mark.parametrize("quick", [0, 1, 15])
def test_wherever_it_starts_the_learning_rate_stays_within_its_range(quick: int) -> None:
    loop = Beyond(-0.9, 0.999)
    for tau in pushes(16, 300, quick=quick):
        loop.momentum(0.8)
        loop.weigh(tau, 0.0)
        assert 0.0 < loop.factor <= 1.0
        assert 0.0 < loop.first <= 1.0


def test_a_loop_saved_before_there_was_one_finds_it_anew() -> None:
    saved = used_up(0.0).state_dict()
    del saved["spread"]
    loop = Beyond(-0.9, 0.999)
    loop.load_state_dict(saved)
    spread = Spread()
    for tau in pushes(16, 100, seed=2):
        loop.momentum(0.8)
        loop.weigh(tau, None)
        spread.update(tau)
    assert loop.first == pytest.approx(FIRST * spread.value * loop.freshness, rel=1e-9)
