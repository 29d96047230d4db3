"""The stability guard: it measures αh, ends what would diverge, and leaves what is easy alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tuner.guard import FREE, MOST, Guard
from tuner.region import best_step, largest_stable_step
from tuner.target import Decision

SIZE = 64


class Descent:
    """½ h ‖x‖² with noise, momentum 0, a constant delay, and a fixed learning rate that the guard may lower."""

    def __init__(self, rate: float, h: float, noise: float, delay: int, guard: Guard) -> None:
        self.rate, self.h, self.noise, self.delay, self.guard = rate, h, noise, delay, guard
        self.draw = torch.Generator().manual_seed(0)
        self.xs = [torch.randn(SIZE, generator=self.draw)]
        self.gs: list[Tensor] = []
        self.rates: list[float] = []
        guard.record(0, self.xs[0], 0.0, 0.0)

    def go(self, updates: int) -> Descent:
        for _ in range(updates):
            t = len(self.gs)
            self.gs.append(self.h * self.xs[t] + self.noise * torch.randn(SIZE, generator=self.draw))
            v = max(0, t - self.delay)
            rate, _ = self.guard.hold(Decision(self.rate, 0.0, 1.0, 1.0))
            self.rates.append(rate)
            self.xs.append(self.xs[t] - rate * self.gs[v])
            self.guard.record(t + 1, self.xs[-1], rate, 0.0)
            self.guard.observe(v, self.gs[v])
        return self


def made() -> Guard:
    return Guard(SIZE, sample=0, history=64, seed=0)


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_with_late_gradients_it_measures_the_step_whatever_the_noise(noise: float) -> None:
    run = Descent(0.05, 1.0, noise, 7, made()).go(600)
    assert run.guard.step == pytest.approx(0.05, abs=0.03)
    assert run.guard.caution == 1.0


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_rate_that_a_delay_makes_unstable_is_lowered_in_time(noise: float) -> None:
    limit = largest_stable_step(0.0, 15)
    run = Descent(2.0 * limit, 1.0, noise, 15, made()).go(1500)
    free = Descent(2.0 * limit, 1.0, noise, 15, made())
    free.guard.observe = lambda *_: None  # type: ignore[method-assign]
    assert free.go(1500).xs[-1].norm() > 1e4
    assert run.xs[-1].norm() < 20.0
    assert run.rates[-1] < limit


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_without_delay_noise_alone_lowers_nothing(noise: float) -> None:
    run = Descent(0.1, 0.5, noise, 0, made()).go(500)
    assert run.guard.caution > 0.95


def test_the_scale_of_the_loss_makes_no_difference() -> None:
    one, other = made(), made()
    first, second = Descent(0.2, 1.0, 0.1, 9, one), Descent(0.2e-6, 1e6, 1e5, 9, other)
    first.go(300)
    second.go(300)
    assert other.caution == pytest.approx(one.caution, rel=1e-3)
    assert one.caution < 1.0


def test_the_step_of_the_target_gives_way_to_the_fastest_one() -> None:
    guard = made()
    Descent(1e-3, 1.0, 0.0, 15, guard).go(30)
    rate, momentum = guard.hold(Decision(0.3, 0.5, 1.0, 1.0, step=0.1))
    expected = best_step(0.5, guard.state_dict()["staleness"]["total"] / guard.state_dict()["staleness"]["weight"])
    assert rate == pytest.approx(0.3 * expected / 0.1)
    assert momentum == 0.5


def test_where_curvature_is_small_the_target_has_its_way_in_time() -> None:
    guard = made()
    run = Descent(0.01, 1e-3, 0.1, 3, guard).go(FREE)
    run.rate = 0.1
    run.go(1)
    assert run.rates[-1] < 0.02
    run.go(800)
    assert run.rates[-1] == pytest.approx(0.1, rel=0.05)
    assert guard.ease <= MOST


def test_a_still_or_overflowed_trajectory_leaves_it_as_it_is() -> None:
    guard = made()
    for x in (torch.ones(SIZE), torch.full((SIZE,), float("inf"))):
        for t in range(6):
            guard.record(t, x, 0.1, 0.0)
            guard.observe(t - 1, torch.ones(SIZE))
    assert (guard.step, guard.caution, guard.ease) == (0.0, 1.0, 1.0)


def test_it_continues_bit_for_bit_and_shares_no_memory() -> None:
    first = Descent(0.2, 1.0, 0.1, 9, made()).go(100)
    second = Descent(0.2, 1.0, 0.1, 9, made()).go(100)
    second.guard = made()
    second.guard.load_state_dict(first.guard.state_dict())
    for run in (first, second):
        run.go(150)
    assert first.rates == second.rates
    with pytest.raises(ValueError, match="sample"):
        Guard(SIZE, sample=8, history=64, seed=0).load_state_dict(first.guard.state_dict())
