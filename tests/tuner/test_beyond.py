"""The loop for a target that bears staleness: what it leaves alone, what it gives way to, and how gradually."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
import torch

from tests.tuner.in_turn import TARGET, settled
from tuner import TunerOptions, build
from tuner.averages import Tracked
from tuner.beyond import BEARS, FIRST, GIVES, LOWEST, TURNED, Beyond
from tuner.both import EXCESS, FASTEST_DOWN, LOWEST_MOMENTUM, MEMORY, QUICK, Both

OWN = TARGET / (1 - TARGET)
WHOLE = GIVES * (OWN + 3 / 13)


@pytest.mark.parametrize("excess", [None, 0.0, 5.0, -5.0, math.nan])
@pytest.mark.parametrize("staleness", [[0], [0, 0, 1], [1], [3], [4], [0, 2, 7, 3]])
def test_what_the_target_bears_changes_nothing(staleness: list[int], excess: float | None) -> None:
    """No staleness, that of one push in three, of two, four and five workers, and a mean of three without order."""
    loop = Beyond(-0.9, 0.999)
    for push in range(600):
        loop.momentum(TARGET)
        loop.weigh(staleness[push % len(staleness)], excess)
        assert loop.momentum(TARGET) == TARGET
    assert (loop.momentum(TARGET), loop.clamped) == (TARGET, None)
    assert (loop.share, loop.factor, loop.rate(0.3, 0.001)) == (0.0, 1.0, 0.3)


def test_before_any_push_nothing_gives_way() -> None:
    loop = Beyond(-0.9, 0.999)
    assert (loop.share, loop.factor) == (0.0, 1.0)
    assert (loop.momentum(TARGET), loop.rate(0.3, 0.0)) == (TARGET, 0.3)


def test_within_it_a_tuner_decides_as_its_target_does_to_the_last_bit() -> None:
    draws = torch.Generator().manual_seed(0)
    size, order = 12, random.Random(1)
    tuners = [
        build(TunerOptions(target="distance", momentum=TARGET, loop=loop), size, 200, 0) for loop in ("open", "both")
    ]
    versions = [torch.randn(size, generator=draws)]
    for tuner in tuners:
        tuner.record(0, versions[0])
    for version in range(1, 150):
        gradient, made_at = torch.randn(size, generator=draws), max(0, version - 1 - (order.randrange(9) == 0))
        decided = []
        for tuner in tuners:
            tuner.target.hear(1.0, version - 1 - made_at)  # past the tuner, which tells it with the loop open of none
            tuner.look(slice(0, size), gradient, versions[made_at])
            decided.append(tuner.decide())
            tuner.absorb(slice(0, size), gradient)
        assert decided[0] == decided[1]
        versions.append(versions[-1] - decided[0].learning_rate * gradient.sign())
        for tuner in tuners:
            tuner.record(version, versions[-1])
            tuner.measure(made_at, gradient)


@pytest.mark.parametrize("workers", [6, 8, 12])
def test_what_is_above_comes_off_the_momentums_own_lag_less_and_less(workers: int) -> None:
    loop = settled(workers)
    momentum = loop.momentum(TARGET)
    taken = WHOLE * math.log(1 + (workers - 1 - BEARS * OWN) / WHOLE)
    assert momentum / (1 - momentum) == pytest.approx(OWN - taken, rel=1e-9)
    share = (TARGET - momentum) / (TARGET - LOWEST_MOMENTUM)
    assert 0 < share < 1
    assert loop.share == pytest.approx(share, rel=1e-12)
    assert loop.factor == pytest.approx((FIRST / workers) ** share, rel=1e-9)


@pytest.mark.parametrize("workers", [14, 16, 64])
def test_where_momentum_is_used_up_the_learning_rate_has_its_whole_range(workers: int) -> None:
    loop = settled(workers)
    assert (loop.momentum(TARGET), loop.clamped) == (LOWEST_MOMENTUM, "low")
    assert loop.share == pytest.approx(1.0, rel=1e-9)
    assert loop.factor == pytest.approx(FIRST / workers, rel=1e-9)
    assert settled(workers, 1e9).factor == pytest.approx(LOWEST / workers, rel=1e-9)
    assert settled(workers, -1e9).factor == pytest.approx(1.0, rel=1e-12)


def test_momentum_falls_as_workers_grow_and_less_for_each() -> None:
    seen = [settled(workers).momentum(TARGET) for workers in range(1, 15)]
    lags = [momentum / (1 - momentum) for momentum in seen[4:]]
    steps = [before - after for before, after in pairwise(lags)]
    assert seen[:5] == [TARGET] * 5
    assert [seen[7], seen[11]] == pytest.approx([0.645, 0.102], abs=5e-4)
    assert all(before > after > 0 for before, after in pairwise(steps))
    assert seen[-1] == LOWEST_MOMENTUM


@pytest.mark.parametrize("workers", [7, 9, 12])
def test_between_them_a_large_excess_costs_the_share_of_that_range(workers: int) -> None:
    loop = settled(workers, 1e9)
    assert loop.factor == pytest.approx((LOWEST / workers) ** loop.share, rel=1e-9)


def test_it_gives_way_gradually_as_staleness_grows() -> None:
    """No step in μ or f at either end of the range: a fiftieth of an update more of τ changes neither by a tenth."""
    loop, last = Beyond(-0.9, 0.999), (TARGET, 1.0)
    for fiftieth in range(700):
        for average, value in ((loop._stale, fiftieth / 50), (loop._fresh, 1 / (1 + fiftieth / 50))):
            average.load_state_dict(Tracked(MEMORY, QUICK).state_dict())
            average.update(value)
        loop._square.update(1.0)
        now = loop.momentum(TARGET), loop.factor
        assert all(0 <= before - after < 0.1 for before, after in zip(last, now, strict=True)), fiftieth
        last = now
    assert last == (LOWEST_MOMENTUM, pytest.approx(FIRST / 15, rel=0.01))


def test_joining_workers_are_followed_and_leaving_ones_too() -> None:
    loop = settled(4)
    for _ in range(15):
        loop.momentum(TARGET)
        loop.weigh(31, None)
    assert loop.momentum(TARGET) == LOWEST_MOMENTUM
    for _ in range(45):  # for as long delays of before and after look like delays without order
        loop.momentum(TARGET)
        loop.weigh(31, None)
    assert loop.factor < 0.03
    for _ in range(150):
        loop.momentum(TARGET)
        loop.weigh(0, 1.0)
    assert (loop.momentum(TARGET), loop.factor) == (TARGET, 1.0), "and the excess of before is forgotten"


@pytest.mark.parametrize("target", [0.0, -0.2, -0.5])
def test_a_target_without_a_lag_bears_nothing(target: float) -> None:
    loop = settled(3, target=target)
    assert loop.momentum(target) == LOWEST_MOMENTUM
    assert loop.share == pytest.approx(1.0, rel=1e-9)
    assert loop.factor == pytest.approx(FIRST / 3, rel=1e-9)


def test_the_users_clamp_is_where_momentum_ends_and_the_learning_rate_begins() -> None:
    loop = Beyond(0.5, 0.7)
    for _ in range(600):
        loop.momentum(TARGET)
        loop.weigh(15, None)
    assert (loop.momentum(TARGET), loop.clamped) == (0.5, "low")
    assert loop.share == pytest.approx(1.0, rel=1e-9)
    borne = Beyond(0.5, 0.7)
    for staleness in (1, *([0] * 200)):
        borne.weigh(staleness, None)
    assert (borne.momentum(TARGET), borne.clamped, borne.share) == (0.7, "high", 0.0)


def test_f_moves_no_faster_here() -> None:
    loop = settled(16, EXCESS)
    before = loop.factor
    loop.weigh(15, 1e9)
    assert math.log(loop.factor / before) == pytest.approx(-FASTEST_DOWN, rel=1e-9)


def test_the_floor_gives_way_to_measured_excess_only() -> None:
    loop = settled(16)
    assert loop.rate(0.016, 0.004) == pytest.approx(0.004), "staleness alone does not lower it"
    assert settled(16, 1e9).rate(0.016, 0.004) == pytest.approx(0.004 * LOWEST / FIRST, rel=1e-9)


def test_its_state_continues_bit_for_bit() -> None:
    draws = random.Random(3)
    first, second = Beyond(-0.9, 0.999), Beyond(-0.9, 0.999)
    for _ in range(70):
        first.momentum(TARGET)
        first.weigh(draws.randrange(13), draws.gauss(0.2, 0.3))
    second.load_state_dict(first.state_dict())
    assert (second.share, second.factor) == (first.share, first.factor)
    for _ in range(50):
        staleness, excess = draws.randrange(13), draws.gauss(0.2, 0.3)
        answers = []
        for loop in (first, second):
            answers.append((loop.momentum(TARGET), loop.rate(0.1, 0.01)))
            loop.weigh(staleness, excess)
        assert answers[0] == answers[1]
    assert first.state_dict() == second.state_dict()


def test_a_recipe_keeps_the_loop_that_knows_of_no_bearing() -> None:
    loops = {
        target: build(TunerOptions(target=target, loop="both"), 4, 100, 0).loop for target in ("distance", "cosine")
    }
    assert type(loops["distance"]) is Beyond
    assert type(loops["cosine"]) is Both


@pytest.mark.parametrize("turned", [0.0, 0.5, 1.0])
def test_less_excess_is_borne_the_more_is_turned_into_an_eigenbasis(turned: float) -> None:
    borne = EXCESS + (TURNED - EXCESS) * turned
    for excess, rises in ((borne - 0.01, True), (borne + 0.01, False)):
        loop = Beyond(-0.9, 0.999, turned)
        for _ in range(200):
            loop.momentum(TARGET)
            loop.weigh(15, 0.5)
        for _ in range(3):
            loop.weigh(15, borne - 0.1)
        before = loop.factor
        loop.weigh(15, excess)
        assert (loop.factor > before) is rises


def test_build_tells_it_how_much_is_turned() -> None:
    made = build(TunerOptions(), 12, 100, 0, turned=1.0)
    recipe = build(TunerOptions(target="constant"), 12, 100, 0, turned=1.0)
    assert isinstance(made.loop, Beyond)
    assert made.loop.borne == pytest.approx(TURNED)
    assert isinstance(recipe.loop, Both)
    assert recipe.loop.borne == EXCESS
