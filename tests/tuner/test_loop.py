"""The open and the closed loop."""

from __future__ import annotations

import pytest

from tuner.loop import Closed, Open


def test_the_open_loop_applies_the_target_whatever_is_measured() -> None:
    loop = Open()
    loop.observe(0.5, 0.9)
    assert loop.momentum(0.5) == 0.5
    assert loop.clamped is None


def test_the_closed_loop_starts_at_zero_and_steps_by_gain_times_error() -> None:
    loop = Closed(0.01, -0.9, 0.999)
    assert loop.momentum(0.9) == 0.0
    loop.observe(0.9, 0.4)
    assert loop.momentum(0.9) == pytest.approx(0.005)


def test_too_much_total_momentum_makes_the_momentum_negative() -> None:
    loop = Closed(0.1, -0.9, 0.999)
    loop.observe(0.2, 0.8)
    assert loop.momentum(0.2) == pytest.approx(-0.06)


def test_no_measurement_leaves_the_momentum_alone() -> None:
    loop = Closed(0.1, -0.9, 0.999)
    loop.observe(0.5, 0.0)
    loop.observe(0.5, None)
    assert loop.momentum(0.5) == pytest.approx(0.05)


def test_the_loop_settles_where_the_measurement_meets_the_target() -> None:
    loop = Closed(0.05, -0.9, 0.999)
    for _ in range(500):
        loop.observe(0.6, loop.momentum(0.6) + 0.4)
    assert loop.momentum(0.6) == pytest.approx(0.2, abs=1e-6)
    assert loop.clamped is None


@pytest.mark.parametrize(("measured", "end", "limit"), [(5.0, "low", -0.5), (-5.0, "high", 0.7)])
def test_a_clamped_loop_says_so_and_leaves_the_clamp_at_once(measured: float, end: str, limit: float) -> None:
    loop = Closed(0.1, -0.5, 0.7)
    for _ in range(1000):
        loop.observe(0.0, measured)
    assert (loop.clamped, loop.momentum(0.0)) == (end, limit)
    loop.observe(0.0, -measured)
    assert loop.clamped is None
    assert abs(loop.momentum(0.0)) < abs(limit)


def test_a_restored_loop_continues_bit_exactly() -> None:
    first, second = Closed(0.1, -0.05, 0.05), Closed(0.1, -0.05, 0.05)
    first.observe(0.9, 0.1)
    second.load_state_dict(first.state_dict())
    assert second.clamped == "high"
    first.observe(0.1, 0.3)
    second.observe(0.1, 0.3)
    assert second.momentum(0.0) == first.momentum(0.0)
