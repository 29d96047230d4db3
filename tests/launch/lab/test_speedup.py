"""The article's measure of speed, on curves whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from launch.lab.speedup import lowest, smoothed, speedup, updates_to


def test_smoothing_is_the_mean_of_a_full_window() -> None:
    means = smoothed(np.array([4.0, 2.0, 0.0, 1.0]), 2)
    assert np.isnan(means[0])
    assert means[1:].tolist() == [3.0, 1.0, 0.5]


def test_a_run_shorter_than_the_window_has_no_lowest_loss() -> None:
    assert lowest(np.ones(5), 6) == math.inf
    assert lowest(np.empty(0), 3) == math.inf
    assert updates_to(np.ones(5), 2.0, 6) is None


def test_windows_with_a_lost_loss_do_not_count() -> None:
    losses = np.array([3.0, math.nan, 2.0, 2.0, math.inf, 1.0])
    assert lowest(losses, 2) == 2.0
    assert updates_to(losses, 2.0, 2) == 4


def test_a_run_twice_as_fast_has_a_speedup_of_two() -> None:
    slow = np.exp(-np.arange(1, 1001) / 200)
    fast = np.exp(-np.arange(1, 1001) / 100)
    assert speedup(slow, fast, 1) == pytest.approx(2.0)
    assert speedup(fast, slow, 1) == pytest.approx(0.5)
    assert speedup(slow, slow, 50) == 1.0


def test_the_level_is_the_lowest_that_both_reach() -> None:
    early_but_stuck = np.concatenate([np.linspace(2, 1, 11), np.ones(89)])
    steady = np.linspace(2, 0, 101)[:100]
    assert speedup(early_but_stuck, steady, 1) == pytest.approx(11 / 51)


def test_there_is_no_speedup_over_a_run_that_came_to_nothing() -> None:
    assert math.isnan(speedup(np.full(50, math.nan), np.ones(50), 5))
