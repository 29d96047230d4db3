"""How much of the way since a gradient was computed the loop takes back, and when none."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from tests.tuner.in_turn import TARGET, settled
from tuner import TunerOptions, build
from tuner.beyond import FARTHEST, MOST, PULL, Beyond


def without_order(workers: int, pushes: int = 2000, turned: float = 1.0) -> Beyond:
    """After so many pushes of M workers each of which is as likely as any other to be the next."""
    loop, draws = Beyond(-0.9, 0.999, turned), random.Random(5)
    taken = [0] * workers
    for version in range(pushes):
        worker = draws.randrange(workers)
        loop.momentum(TARGET)
        loop.weigh(version - taken[worker], None)
        taken[worker] = version + 1
    loop.momentum(TARGET)
    return loop


@pytest.mark.parametrize("workers", [2, 4, 16, 64])
def test_without_order_it_pulls_back_the_less_at_once_the_staler_gradients_are(workers: int) -> None:
    loop = without_order(workers)
    pull = loop.pull(1)
    assert pull is not None
    stale = loop._spread.stale
    assert stale == pytest.approx(workers - 1, rel=0.5), "as stale as that many make them"
    assert pull.part == pytest.approx(PULL / max(1.0, stale), rel=1e-12)
    assert pull.most == MOST
    assert loop.pull(0) is None, "a gradient that is not stale has nothing to take back"


@pytest.mark.parametrize(("workers", "share"), [(2, 1.0), (4, 1.0), (5, 1.0), (8, 0.86), (12, 0.36), (14, 0), (64, 0)])
def test_in_turn_it_pulls_back_as_far_as_momentum_has_not_given_way(workers: int, share: float) -> None:
    pull = settled(workers).pull(workers - 1)
    assert (0.0 if pull is None else pull.part) == pytest.approx(share * PULL / (workers - 1), rel=0.02)
    assert pull is None or pull.most == MOST


def test_where_nothing_is_stale_or_known_it_pulls_nothing_back() -> None:
    loop = Beyond(-0.9, 0.999)
    assert loop.pull(3) is None
    for push in range(15):  # gradients of x_0
        loop.momentum(TARGET)
        loop.weigh(push, None)
        assert loop.pull(push + 1) is None
    assert settled(1).pull(0) is None


def test_a_gradient_from_long_ago_undoes_no_more_than_one_of_eight_times_the_mean_staleness() -> None:
    loop = without_order(16)
    mean = loop._spread.stale
    assert mean is not None
    for times, share in ((1, 1.0), (FARTHEST, 1.0), (2 * FARTHEST, 0.5), (1000 * FARTHEST, 0.001)):
        pull = loop.pull(round(times * mean))
        assert pull is not None
        assert pull.most == pytest.approx(share * MOST, rel=0.01)
        assert pull.part == pytest.approx(share * PULL / mean, rel=0.01)


def test_it_pulls_back_the_more_the_less_order_there_is() -> None:
    """A part of all delays one longer and as many one shorter, in a growing range."""
    pulls = []
    for width in range(16):
        loop = Beyond(-0.9, 0.999)
        for push in range(3000):
            loop.momentum(TARGET)
            loop.weigh(min(push, 15 + (width if push % 2 else -width)), None)
        pull = loop.pull(15)
        pulls.append(0.0 if pull is None else pull.part)
    assert pulls[0] == pulls[4] == 0.0
    assert all(before <= after + 1e-4 for before, after in pairwise(pulls))
    assert pulls[-1] == pytest.approx(PULL / 15, rel=0.1)
    assert any(0.1 * PULL / 15 < pull < 0.9 * PULL / 15 for pull in pulls), "and gradually"


def test_it_pulls_by_the_order_of_what_is_turned_however_much_that_is() -> None:
    pull = without_order(4, turned=0.0).pull(3)
    assert pull == without_order(4, turned=1.0).pull(3)
    assert pull is not None


@pytest.mark.parametrize("loop", ["open", "closed", "both"])
def test_no_other_loop_pulls(loop: str) -> None:
    made = build(TunerOptions(target="constant", loop=loop), 4, 100, 0).loop  # type: ignore[arg-type]
    for push in range(200):
        made.weigh(push % 7, None)
    assert made.pull(3) is None
