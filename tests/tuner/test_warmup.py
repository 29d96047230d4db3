"""The warm-up: a line where nothing is stale, else only as much as gradients have told is well."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch

from tests.tuner.telling import SIZE, told
from tuner.distance import LearntDistance
from tuner.spread import Spread
from tuner.warmup import AGAIN, ENOUGH, FALL, FEWEST, FIRST, LEAST, LINEAR, RISE, STALE, WarmUp, linear

LONG = 10**9
Cosine = Callable[[int], float]


def in_turn(workers: int, count: int, cosine: Cosine, updates: int = LONG) -> list[float]:
    """p at each of `count` updates; cosine: of the n-th gradient that is not of x_0, from 0."""
    spread = Spread()
    warm_up = WarmUp(updates, spread)
    parts = []
    for t in range(count):
        staleness = min(t, workers - 1)
        spread.update(staleness)
        parts.append(warm_up.update(staleness, cosine(t - workers) if t >= workers else None))
    return parts


def first_at(parts: Sequence[float], value: float) -> int:
    return next(t for t, part in enumerate(parts) if part >= value)


@pytest.mark.parametrize(("updates", "length"), [(1000, 40), (400, 40), (100, 10), (20, 2.5)])
@pytest.mark.parametrize("cosine", [1.0, -1.0])
def test_where_nothing_is_stale_it_is_a_line_whatever_gradients_tell(
    updates: int, length: float, cosine: float
) -> None:
    parts = in_turn(1, 60, lambda n: cosine, updates)
    assert parts == pytest.approx([min(1.0, (t + 1) / length) for t in range(60)], rel=1e-12)
    assert parts == [linear(t, updates) for t in range(60)]


@pytest.mark.parametrize("workers", [4, 8, 16, 32, 64])
def test_while_all_goes_well_it_is_low_until_enough_have_told_and_then_rises(workers: int) -> None:
    parts = in_turn(workers, 10 * workers, lambda n: 0.1)
    held = min(max(FEWEST - 1, workers // 2), ENOUGH)
    known = workers + held  # the first that may rise
    assert parts[1:known] == [FIRST] * (known - 1)
    rise = max(STALE - workers - held, RISE * workers)
    assert parts[known : known + 3] == pytest.approx([FIRST ** (1 - k / rise) for k in (1, 2, 3)], rel=1e-9)
    assert first_at(parts, 1.0) <= known + rise
    assert parts[first_at(parts, 1.0) :] == [1.0] * (len(parts) - first_at(parts, 1.0))


def test_a_short_run_with_stale_gradients_rises_as_quickly_as_its_length_asks() -> None:
    assert first_at(in_turn(4, 60, lambda n: 0.1, 100), 1.0) < first_at(in_turn(4, 60, lambda n: 0.1), 1.0)


@pytest.mark.parametrize("workers", [4, 16])
def test_where_the_way_goes_up_it_falls_to_the_freshness_or_a_tenth_and_stays(workers: int) -> None:
    parts = in_turn(workers, 200, lambda n: 0.1 if n < 3 else -0.1 - 0.01 * (n % 3))
    assert max(parts) < 1.2 * FIRST
    down = [b / a for a, b in pairwise(parts) if b < a]
    assert min(down) == pytest.approx(FALL, rel=1e-9) or workers == 4
    assert parts[-50:] == pytest.approx([max(1 / workers, LEAST)] * 50, rel=1e-9)


def test_an_alarm_that_was_false_is_made_up_for() -> None:
    parts = in_turn(16, 400, lambda n: -0.1 if 10 < n < 24 else 0.1)
    lowest = parts.index(min(parts[30:]))
    assert any(b < a for a, b in pairwise(parts))
    assert parts[-1] == 1.0
    again = [b / a for a, b in pairwise(parts[lowest + 1 :]) if a < b < 1.0]
    assert again == pytest.approx([FIRST ** (-1.0 / (16 * AGAIN))] * len(again), rel=1e-9), "in three rounds or more"
    assert len(again) > 3 * 16


def test_within_two_standard_errors_of_zero_it_waits() -> None:
    draw = random.Random(3)
    parts = in_turn(16, 400, lambda n: draw.choice((-0.1, 0.1)) - 0.02)
    falls = sum(b < a for a, b in pairwise(parts))
    waits = sum(b == a for a, b in pairwise(parts) if a < 1.0)
    assert waits > falls, "most of what is below 0 by chance only holds it"


def test_a_round_at_the_whole_must_pass_before_it_is_over() -> None:
    """Steps of the whole length show only a round later that they are too long."""
    full = first_at(in_turn(16, 100, lambda n: 0.1), 1.0)
    soon = in_turn(16, 200, lambda n: 0.1 if n + 16 < full + 10 else -0.1)
    late = in_turn(16, 200, lambda n: 0.1 if n + 16 < full + 20 else -0.1)
    assert soon[-1] == pytest.approx(LEAST, rel=1e-9)
    assert late[full:] == [1.0] * (200 - full)


def test_a_worker_that_joins_early_finds_the_line_where_it_was() -> None:
    spread = Spread()
    warm_up = WarmUp(LONG, spread)
    for t in range(20):
        spread.update(0)
        assert warm_up.update(0, 0.1) == linear(t, LONG)
    spread.update(1)
    assert warm_up.update(1, None) == linear(19, LONG), "no step back"


def test_after_the_warm_up_workers_that_join_begin_no_other() -> None:
    spread = Spread()
    warm_up = WarmUp(LONG, spread)
    for t in range(300):
        staleness = 0 if t < LINEAR else 15
        spread.update(staleness)
        part = warm_up.update(staleness, -0.5)
    assert (part, warm_up.over) == (1.0, True)


@pytest.mark.parametrize("stop", [0, 10, 20, 30, 45, 60])
def test_it_continues_where_it_was(stop: int) -> None:
    draw = random.Random(1)
    cosines = [draw.gauss(-0.1 if 10 < n < 24 else 0.1, 0.05) for n in range(100)]
    straight = in_turn(16, 100, lambda n: cosines[n])
    assert straight[60] > min(straight[30:60]) < straight[30], "it falls, and rises again"
    spread = Spread()
    warm_up = WarmUp(LONG, spread)
    for t in range(100):
        if t == stop:
            spread, saved = Spread(), json.loads(json.dumps((spread.state_dict(), warm_up.state_dict())))
            warm_up = WarmUp(LONG, spread)
            spread.load_state_dict(saved[0])
            warm_up.load_state_dict(saved[1])
        staleness = min(t, 15)
        spread.update(staleness)
        assert warm_up.update(staleness, cosines[t - 16] if t >= 16 else None) == straight[t]


def trained(distance: float, known: bool = True, workers: int = 16) -> tuple[float, list[float]]:
    """Steps of Adam's kind on ½ ‖x − x*‖², in turn, x* so many d_0 from x_0: how far at most x is from it, and p.

    known: the target knows of the staleness; else its warm-up is a line.
    """
    target = LearntDistance(SIZE, momentum=0.0, updates=LONG)
    start = torch.ones(SIZE)
    optimum = start + distance * 0.04
    xs, worst, parts = [start], 0.0, []
    for t in range(120):
        origin = xs[max(0, t - workers + 1)]
        target.hear(1.0, min(t, workers - 1) if known else 0)
        gradient = origin - optimum
        rate = told(target, gradient, origin).learning_rate
        parts.append(rate / target.distance)
        xs.append(xs[-1] - rate * gradient.sign())
        worst = max(worst, float((xs[-1] - optimum).abs().max()))
    return worst / 0.04, parts


def test_a_start_that_is_nearly_right_is_not_left_as_far_as_by_a_line() -> None:
    """x* is one d_0 away: all sixteen have gone beyond it when the first of their gradients says so."""
    worst, parts = trained(1.0)
    line, _ = trained(1.0, known=False)
    assert worst < 0.7 * line
    assert min(parts[30:]) == pytest.approx(LEAST, rel=1e-5)


def test_a_start_that_is_far_away_has_the_whole_learning_rate_soon() -> None:
    worst, parts = trained(1000.0)
    assert worst == pytest.approx(1000.0, rel=1e-3)
    assert parts[40:] == pytest.approx([1.0] * 80, rel=1e-5)


def test_a_target_saved_before_there_was_one_goes_on_with_the_whole_or_warms_up() -> None:
    for count, whole in ((10, False), (60, True)):
        target = LearntDistance(SIZE, momentum=0.0, updates=LONG)
        for _ in range(count):
            told(target, torch.ones(SIZE), torch.ones(SIZE))
        state = target.state_dict()
        del state["warm_up"]
        target = LearntDistance(SIZE, momentum=0.0, updates=LONG)
        target.load_state_dict(state)
        decision = told(target, torch.ones(SIZE), torch.ones(SIZE))
        expected = 1.0 if whole else linear(count, LONG)
        assert decision.learning_rate == pytest.approx(target.distance * expected, rel=1e-6)
