"""The distance target below its first estimate: where stale gradients show that d_0 itself is too large."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from tuner.distance import BELOW, LearntDistance, falling
from tuner.first_distance import FIRST
from tuner.target import Decision
from tuner.warmup import LEAST

SIZE, KNOWN = 12, 20  # KNOWN: updates before standard errors are believed
WHOLE = slice(0, SIZE)
START = torch.full((SIZE,), 2.0)
FIRST_D = FIRST * 2.0
AWAY = 1e-4 * torch.ones(SIZE)  # so short that r/‖s‖₁ is far below d_0 whatever it says


def pushed(target: LearntDistance, towards: int, staleness: int) -> Decision:
    """One update: ⟨g, x_0 − x_v⟩ above 0, below 0 or 0, as `towards` is."""
    target.hear(1.0, staleness)
    target.look(WHOLE, torch.ones(SIZE), START - towards * AWAY)
    decision = target.decide()
    target.absorb(WHOLE, torch.ones(SIZE))
    return decision


def begun(staleness: int, layers: tuple[int, ...] = (), updates: int = 10**9) -> LearntDistance:
    """A target that has taken so many gradients at x_0 that the next says enough."""
    target = LearntDistance(SIZE, momentum=0.8, updates=updates, layers=layers)
    for _ in range(KNOWN):
        pushed(target, 0, staleness)
    assert target.distance == pytest.approx(FIRST_D, rel=1e-6)
    return target


@pytest.mark.parametrize("staleness", [3, 15, 31])
def test_below_its_first_value_it_falls_slowly_to_the_root_of_the_freshness_times_that(staleness: int) -> None:
    target, seen = begun(staleness), [FIRST_D]
    for _ in range(600):
        pushed(target, -1, staleness)
        seen.append(target.distance)
    falling = [FIRST_D] + [FIRST_D * (1 - BELOW) ** t for t in range(1, 601)]
    late = next(t for t, d in enumerate(seen) if d < FIRST_D * (1 - BELOW / 2)) - 1
    assert late < 5, "a mean of gradients at x_0 and behind it is below 0 by chance at first"
    least = FIRST_D * (1.0 + staleness) ** -0.5
    assert seen[late:] == pytest.approx([max(d, least) for d in falling[: len(seen) - late]], rel=1e-5)
    assert seen[-1] == pytest.approx(least, rel=1e-6)


def test_without_staleness_it_stays_at_its_first_value() -> None:
    target = begun(0)
    for _ in range(200):
        pushed(target, -1, 0)
        assert target.distance == pytest.approx(FIRST_D, rel=1e-6)


def test_what_was_lost_is_regained_where_the_way_on_is_forward_and_no_more() -> None:
    target, seen = begun(15), []
    for _ in range(100):
        pushed(target, -1, 15)
    lowest = target.distance
    assert lowest < 0.7 * FIRST_D
    for _ in range(300):
        pushed(target, 1, 15)
        seen.append(target.distance)
    assert min(seen) > 0.8 * lowest, "the mean turns within its memory"
    rising = [b / a for a, b in pairwise(seen) if b > a]
    assert max(rising) == pytest.approx(1.0 + BELOW, rel=1e-9)
    assert seen[-1] == pytest.approx(FIRST_D, rel=1e-6)


def test_a_mean_of_nothing_regains_nothing() -> None:
    target = begun(15)
    for _ in range(100):
        pushed(target, -1, 15)
    state = target.state_dict()
    target.load_state_dict({**state, "means": [0.0]})
    pushed(target, 0, 15)
    assert target.distance == state["distances"][0]


def test_fewer_than_two_standard_errors_below_zero_are_chance() -> None:
    target, draw = begun(15), torch.Generator().manual_seed(0)
    for sign in torch.randint(0, 2, (400,), generator=draw).tolist():
        pushed(target, 2 * sign - 1, 15)
    assert target.distance > 0.8 * FIRST_D


def test_as_staleness_goes_so_does_how_low_it_may_be_and_it_never_falls_at_once() -> None:
    target, seen = begun(15), []
    for t in range(900):
        pushed(target, -1, 15 if t < 400 else 3)
        seen.append(target.distance)
    assert seen[399] == pytest.approx(FIRST_D / 4, rel=1e-6)
    assert seen[-1] == seen[399], "only a way forward raises it"
    assert all(b >= a * (1 - BELOW) * (1 - 1e-12) for a, b in pairwise(seen))


def test_steps_and_their_floor_go_by_what_is_left_of_each_layer() -> None:
    target = begun(15, (4, 8), 1000)
    for _ in range(KNOWN, 300):
        x = START.clone()
        x[:4] += AWAY[:4]  # the first layer alone has gone too far
        target.hear(1.0, 15)
        target.look(WHOLE, torch.ones(SIZE), x)
        decision = target.decide()
        target.absorb(WHOLE, torch.ones(SIZE))
    low, kept = target.distances
    assert (low, kept) == (pytest.approx(FIRST_D / 4, rel=1e-6), pytest.approx(FIRST_D, rel=1e-6))
    assert decision.strides is not None
    rates = [decision.learning_rate * factor for factor in decision.strides.factors]
    share = falling(299, 1000) * LEAST  # the warm-up has gone too far as well
    assert rates == pytest.approx([d * share for d in (low, kept)], rel=1e-9)
    mean = math.exp((4 * math.log(low) + 8 * math.log(kept)) / 12)
    assert decision.floor == pytest.approx(mean * share, rel=1e-9)
