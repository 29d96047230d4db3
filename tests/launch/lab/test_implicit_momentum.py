"""Implicit momentum: 1 − 1/M and α/M on memoryless staleness, and the same trajectory as the real server."""

from __future__ import annotations

import numpy as np
import pytest

from launch.lab.implicit_momentum import TOLERANCE, errors, expected, fitted, memoryless, round_robin, same_as_server


def test_sixteen_memoryless_workers_have_the_momentum_and_the_step_of_theory() -> None:
    found = memoryless(16, 40_000)
    assert found.fit.momentum == pytest.approx(15 / 16, rel=TOLERANCE)
    assert found.fit.step == pytest.approx(1 / 16, rel=TOLERANCE)
    assert max(found.errors) < TOLERANCE / 3


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_few_workers_too(workers: int) -> None:
    assert max(errors(workers, memoryless(workers, 40_000).fit)) < TOLERANCE


@pytest.mark.parametrize("workers", [2, 16])
def test_the_same_arrivals_give_the_servers_trajectory(workers: int) -> None:
    assert same_as_server(workers, 150, seed=3) < 1e-5


def test_round_robin_is_another_operator() -> None:
    turn = round_robin(16).fit
    assert turn.step > 1.2 / 16
    assert turn.apart > 0.3


def test_the_regression_finds_the_iteration_it_is_given() -> None:
    gains = np.array([0.1, 0.3])
    fit = fitted(expected(8, gains, 60), gains, 8)
    assert (fit.momentum, fit.step, fit.apart) == pytest.approx((7 / 8, 1 / 8, 0.0), abs=1e-9)
