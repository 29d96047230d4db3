"""The spread of delays: 1 in turn, from the first update on, M ln M/(M − 1) without order, 1 where all is fresh."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator

import pytest

from tuner.beyond import FIRST, MEMORY, ORDERED, SPREAD, UNTURNED, Beyond
from tuner.both import LOWEST_MOMENTUM
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
    loop = Beyond(-0.9, 0.999, 1.0)
    for tau in pushes(16, 600):
        loop.momentum(0.8)
        loop.weigh(tau, excess)
    return loop


def test_without_order_the_learning_rate_is_left_alone() -> None:
    for excess in (None, 1e9, -1e9):
        loop = used_up(excess)
        assert (loop.momentum(0.8), loop.share, loop.factor) == (LOWEST_MOMENTUM, 0.0, 1.0)


@pytest.mark.parametrize(
    ("early_or_late", "turned", "least", "most"),
    [(0, 1.0, 0.999, 1.001), (7, 1.0, 0.999, 1.001), (11, 1.0, 0.3, 0.8), (13, 1.0, 0.0, 0.2), (13, 0.0, 0.999, 1.001)],
)
def test_the_less_order_the_less_range(early_or_late: int, turned: float, least: float, most: float) -> None:
    """Sixteen in turn, each early or late by up to so many pushes."""
    draws, loop, spread = random.Random(1), Beyond(-0.9, 0.999, turned), Spread(MEMORY)
    for version in range(1200):
        staleness = min(version, 15 + draws.randint(-early_or_late, early_or_late))
        loop.momentum(0.8)
        loop.weigh(staleness, None)
        spread.update(staleness)
    loop.momentum(0.8)
    counts = spread.value if turned else spread.value / UNTURNED
    assert loop.share == pytest.approx(min(max((SPREAD - counts) / (SPREAD - ORDERED), 0.0), 1.0), rel=1e-9)
    assert least <= loop.share < most
    assert loop.factor == pytest.approx((FIRST * loop.freshness) ** loop.share, rel=1e-9)


def test_a_longer_memory_leaves_less_to_chance_and_follows_a_change_as_soon() -> None:
    far = {}
    for memory in (0.98, MEMORY):
        values = []
        for seed in range(1, 11):
            spread = Spread(memory)
            values += [spread.update(tau) for tau in pushes(16, 1000, seed=seed)][400:]
            for _ in range(100):
                spread.update(31)
            assert spread.value < ORDERED
        far[memory] = statistics.pstdev(values)
    assert far[MEMORY] < 0.8 * far[0.98]


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
    loop = Beyond(-0.9, 0.999, 1.0)
    loop.load_state_dict(saved)
    spread = Spread(MEMORY)
    for tau in pushes(16, 100, seed=2):
        loop.momentum(0.8)
        loop.weigh(tau, None)
        spread.update(tau)
    loop.momentum(0.8)
    assert loop.share == 0.0
    assert loop.state_dict()["spread"] == spread.state_dict()
