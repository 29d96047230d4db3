"""Total momentum by regression: exact in expectation, in noise where the median is blind, and where it fails."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from tuner.from_options import build
from tuner.options import TunerOptions
from tuner.regression import LAGS, Regression, moments, solve


def expected_fit(workers: int, mu: float, noise: float, runs: int = 30_000) -> tuple[float, float]:
    """ρ and s from sums in which every coordinate is a run of its own, with its own order of workers."""
    draw = torch.Generator().manual_seed(3)
    gains = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).repeat(runs // 3)
    every = torch.arange(len(gains))

    def gradient(x: torch.Tensor) -> torch.Tensor:
        return gains * x + noise * torch.randn(len(x), dtype=torch.float64, generator=draw)

    xs, fresh, applied = [torch.ones_like(gains)], [], []
    held = torch.stack([gradient(xs[0]) for _ in range(workers)])
    who = torch.zeros(len(gains), dtype=torch.int64)
    for t in range(3 * workers + 20):
        fresh.append(gradient(xs[t]))
        if t:
            held[who, every] = fresh[t]
        who = torch.randint(workers, (len(gains),), generator=draw)
        applied.append(held[who, every])
        xs.append(xs[t] + mu * (xs[t] - xs[max(0, t - 1)]) - applied[t])
    sums = torch.zeros(len(LAGS), 3 + len(LAGS), dtype=torch.float64)
    for v in range(2, len(applied)):
        older = torch.stack([xs[max(0, v - 1 - lag)] for lag in LAGS])
        found = moments(xs[v - 1], older, applied[v - 1], fresh[v], applied[v])
        assert found is not None
        sums += found
    fit = solve(sums)
    assert fit is not None
    return fit


@pytest.mark.parametrize("mu", [-0.3, 0.0])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_sixteen_memoryless_workers_have_fifteen_sixteenths_and_a_sixteenth_of_the_step(
    mu: float, noise: float
) -> None:
    momentum, share = expected_fit(16, mu, noise)
    assert momentum == pytest.approx(15 / 16, abs=0.01)
    assert share == pytest.approx(1 / 16, abs=0.01)


@pytest.mark.parametrize("workers", [2, 4])
def test_fewer_workers_have_less(workers: int) -> None:
    momentum, share = expected_fit(workers, 0.0, 0.3)
    assert (momentum, share) == (pytest.approx(1 - 1 / workers, abs=0.01), pytest.approx(1 / workers, abs=0.01))


@pytest.mark.parametrize("mu", [-0.9, 0.0, 0.7])
def test_without_staleness_it_is_the_momentum_and_the_whole_step(table: ModuleType, mu: float) -> None:
    one = table.estimators()["regression"]
    for row in table.measured({"one": one}, 1, 5.0, mu, 60, True, 0.05):
        assert row["one"] is None or row["one"] == pytest.approx(mu, abs=1e-14)
    assert row["one"] is not None
    assert one.effective_step == pytest.approx(1.0, abs=1e-14)


def test_noise_blinds_the_median_and_not_the_regression(table: ModuleType) -> None:
    for noise in (1.0, 10.0):
        found = table.spread(4, noise, updates=900)
        assert found["median"][0] < 0.1
        assert found["regression"][0] == pytest.approx(0.75, abs=0.08)
        assert found["regression"][1] < 0.15


def test_the_effective_step_of_real_orders_is_a_share_of_the_workers(table: ModuleType) -> None:
    one = table.estimators()["regression"]
    list(table.measured({"one": one}, 4, 0.0, 0.0, 400, True, 0.05))
    assert one.effective_step == pytest.approx(1 / 4, abs=0.05)


def test_steps_too_short_for_the_window_read_as_too_little_staleness(table: ModuleType) -> None:
    mean, _ = table.spread(16, 1.0, updates=700, rate=0.001)["regression"]
    assert mean < 0.85


def test_versions_that_are_forgotten_are_no_measurement() -> None:
    one, g = Regression(8, sample=0, history=6, seed=0), torch.ones(8)
    x = torch.zeros(8)
    one.record(0, one.sample(x), 0.1)
    for t in range(40):
        x = x - 0.1 * g
        one.record(t + 1, one.sample(x), 0.1)
        seen = one.measure(t - 2, one.sample(g))
    assert seen is not None
    assert one.measure(34, g) is None
    assert [v for v in range(45) if one.holds(v)] == [35, 36, 37, 38, 39, 40]


def test_a_still_trajectory_and_an_overflowed_one_leave_the_sums_alone() -> None:
    one = Regression(4, sample=0, history=16, seed=0)
    for x in (torch.ones(4), torch.full((4,), float("inf"))):
        for t in range(6):
            one.record(t, one.sample(x), 0.1)
            assert one.measure(t - 1, torch.ones(4)) is None
    assert not one.state_dict()["sums"].any()


def test_the_loop_closed_on_it_finds_the_momentum_that_makes_up_for_staleness() -> None:
    options = TunerOptions(
        target="constant", momentum=0.8, learning_rate=0.05, loop="closed", estimator="regression", gain=0.05
    )
    tuner, h = build(options, 128, 600, 0), torch.linspace(0.2, 1.0, 128)
    here = before = torch.randn(128, generator=torch.Generator().manual_seed(0))
    tuner.record(0, here)
    gradients = []
    for t in range(600):
        gradients.append(h * here)
        g = gradients[max(0, t - 3)]
        tuner.look(slice(0, 128), g)
        now = tuner.decide()
        tuner.absorb(slice(0, 128), g)
        here, before = here + now.momentum * (here - before) - now.learning_rate * g, here
        tuner.record(t + 1, here)
        tuner.measure(max(0, t - 3), g)
    assert now.momentum == pytest.approx(0.5, abs=0.06)  # a lag of 4 wanted, of which staleness is 3
