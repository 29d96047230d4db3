"""Total momentum by lag: the known cases, and the same contract as the median."""

from __future__ import annotations

import random

import pytest
import torch

from tuner import TunerOptions, build
from tuner.lag import Lag

NONE = torch.zeros(0)


def settled(staleness: list[int], momentum: float) -> float:
    lag, measured = Lag(), 0.0
    for version, late in enumerate(staleness, start=1):
        lag.record(version, NONE, 0.1, momentum)
        measured = lag.measure(version - 1 - late, NONE)
    return measured


@pytest.mark.parametrize("momentum", [-0.9, -0.3, 0.0, 0.5, 0.9])
def test_without_staleness_it_is_the_momentum(momentum: float) -> None:
    assert settled([0] * 50, momentum) == pytest.approx(momentum, abs=1e-12)


@pytest.mark.parametrize("workers", [2, 4, 16, 64])
def test_round_robin_workers_without_momentum_have_one_minus_one_over_them(workers: int) -> None:
    assert settled([workers - 1] * 400, 0.0) == pytest.approx(1 - 1 / workers, abs=1e-12)


def test_memoryless_workers_have_the_same_mean() -> None:
    draws = random.Random(0)
    latest = [0] * 8
    staleness = []
    for version in range(20_000):
        worker = draws.randrange(8)
        staleness.append(version - latest[worker])
        latest[worker] = version + 1
    assert sum(staleness) / len(staleness) == pytest.approx(7, rel=0.02)
    assert settled(staleness, 0.0) == pytest.approx(1 - 1 / 8, abs=0.03)


def test_the_loop_finds_the_momentum_that_makes_up_for_staleness() -> None:
    tuner = build(TunerOptions(target="constant", momentum=0.9, loop="closed", estimator="lag", gain=0.05), 4, 100, 0)
    tuner.record(0, torch.zeros(4))
    for version in range(1, 4000):
        tuner.look(slice(0, 4), torch.ones(4))
        settings = tuner.decide()
        tuner.absorb(slice(0, 4), torch.ones(4))
        tuner.record(version, torch.zeros(4))
        tuner.measure(version - 1 - 4, NONE)
    lag = 0.9 / 0.1 - 4
    assert settings.momentum == pytest.approx(lag / (1 + lag), abs=1e-3)


def test_a_target_with_less_lag_than_the_staleness_clamps_the_loop() -> None:
    tuner = build(TunerOptions(target="constant", momentum=0.9, loop="closed", estimator="lag", gain=0.5), 4, 100, 0)
    tuner.record(0, torch.zeros(4))
    for version in range(1, 400):
        tuner.look(slice(0, 4), torch.ones(4))
        settings = tuner.decide()
        tuner.absorb(slice(0, 4), torch.ones(4))
        tuner.record(version, torch.zeros(4))
        tuner.measure(version - 1 - 15, NONE)
    assert (settings.momentum, tuner.clamped) == (-0.9, "low")


def test_its_state_continues_bit_for_bit() -> None:
    first, second = Lag(), Lag()
    for version in range(1, 30):
        first.record(version, NONE, 0.1, 0.25)
        first.measure(max(0, version - 3), NONE)
    second.load_state_dict(first.state_dict())
    for lag in (first, second):
        lag.record(30, NONE, 0.1, 0.5)
    assert first.measure(20, NONE) == second.measure(20, NONE)
