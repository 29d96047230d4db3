"""The robust region with delay, against simulations of the recursions and NumPy's roots of the polynomials."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from tuner.region import (
    best_step,
    largest_stable_step,
    mean_square_radius,
    mean_stable_step,
    spectral_radius,
    stable_bound,
)

MOMENTA = [-0.9, -0.6, -0.3, 0.0, 0.2, 0.5, 0.8, 0.95]
DELAYS = [*range(10), 15, 16, 31, 62, 63]
grid = pytest.mark.parametrize("mu", MOMENTA)


def of_roots(mu: float, step: float, delay: int) -> float:
    """Largest root of z^{τ+1} − (1 + μ) z^τ + μ z^{τ−1} + αh, by NumPy."""
    polynomial = np.zeros(max(delay, 1) + 2)
    polynomial[:3] = 1.0, -1.0 - mu, mu
    polynomial[delay + 1] += step
    return float(np.abs(np.roots(polynomial)).max())


def late(mu: float, step: float, delay: int, updates: int) -> list[float]:
    """|x_t| of the recursion itself, from 1, with gradients at 1 before the start; ends where it has overflowed."""
    xs = [1.0] * (delay + 2)
    while len(xs) < updates and abs(xs[-1]) < 1e9:
        xs.append(xs[-1] + mu * (xs[-1] - xs[-2]) - step * xs[-1 - delay])
    return [abs(x) for x in xs]


@grid
@pytest.mark.parametrize("delay", DELAYS)
def test_the_limit_of_a_constant_delay_is_where_the_largest_root_leaves_the_unit_circle(mu: float, delay: int) -> None:
    limit = largest_stable_step(mu, delay)
    assert of_roots(mu, limit * (1 - 1e-6), delay) < 1.0 < of_roots(mu, limit * (1 + 1e-6), delay)


@grid
@pytest.mark.parametrize("delay", [0, 1, 2, 5, 15])
def test_the_recursion_shrinks_below_the_limit_and_grows_above_it(mu: float, delay: int) -> None:
    limit = largest_stable_step(mu, delay)
    below, above = late(mu, 0.95 * limit, delay, 4000), late(mu, 1.05 * limit, delay, 4000)
    assert max(below[-100:]) < 0.1 * max(below[:100])
    assert max(above[-100:]) > 10.0


@pytest.mark.parametrize("delay", DELAYS)
def test_without_momentum_the_limit_has_a_closed_form(delay: int) -> None:
    expected = 2.0 * math.sin(math.pi / (2.0 * (2 * delay + 1)))
    assert largest_stable_step(0.0, delay) == pytest.approx(expected, rel=1e-12)
    assert stable_bound(0.0, delay) == pytest.approx(expected, rel=1e-12)


@grid
def test_without_staleness_it_is_the_well_known_region(mu: float) -> None:
    assert largest_stable_step(mu, 0) == pytest.approx(2 * (1 + mu), rel=1e-12)
    if mu >= 0.0:
        assert best_step(mu, 0) == pytest.approx((1 - math.sqrt(mu)) ** 2, rel=1e-12)
        assert best_step(mu, 0, "memoryless") == pytest.approx((1 - math.sqrt(mu)) ** 2, rel=1e-6)


@grid
def test_the_bound_is_safe_for_every_whole_delay_and_falls_in_between(mu: float) -> None:
    bounds = [stable_bound(mu, tenths / 10) for tenths in range(640)]
    assert all(later <= before * (1 + 1e-12) for before, later in pairwise(bounds))
    assert all(bounds[10 * delay] <= largest_stable_step(mu, delay) * (1 + 1e-12) for delay in range(64))
    assert all(bounds[t] <= largest_stable_step(mu, t / 10) * (1 + 1e-12) for t in range(640))


@grid
@pytest.mark.parametrize("delay", [0, 1, 3, 8, 15])
def test_no_other_step_is_faster_than_the_best(mu: float, delay: int) -> None:
    steps = np.linspace(0.0, largest_stable_step(mu, delay), 300)[1:]
    least = min(of_roots(mu, step, delay) for step in steps)
    assert spectral_radius(mu, best_step(mu, delay), delay) <= least + 1e-6


@grid
@pytest.mark.parametrize("delay", [0, 1, 4, 20])
def test_the_spectral_radius_is_that_of_the_polynomial(mu: float, delay: int) -> None:
    for part in (0.1, 0.7, 1.3):
        step = part * largest_stable_step(mu, delay)
        assert spectral_radius(mu, step, delay) == pytest.approx(of_roots(mu, step, delay), abs=1e-7)


def drawn(mu: float, step: float, workers: int, updates: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x_T and x_{T/2} of 20,000 runs, whose updates are by workers drawn at random."""
    runs, draw = torch.arange(20_000), torch.Generator().manual_seed(0)
    here = before = torch.ones(len(runs), dtype=torch.float64)
    held, middle = torch.ones(len(runs), workers, dtype=torch.float64), here
    for t in range(updates):
        who = torch.randint(workers, (len(runs),), generator=draw)
        here, before = here + mu * (here - before) - step * held[runs, who], here
        held[runs, who] = here
        middle = here if t == updates // 2 else middle
    return here, middle


@pytest.mark.parametrize(("mu", "step", "workers"), [(0.0, 0.05, 4), (0.3, 0.02, 8), (-0.5, 0.1, 4)])
def test_the_mean_of_memoryless_runs_shrinks_at_the_spectral_radius(mu: float, step: float, workers: int) -> None:
    last, middle = drawn(mu, step, workers, 81)
    rate = float(last.mean() / middle.mean()) ** (1 / 40)
    assert rate == pytest.approx(spectral_radius(mu, step, workers - 1, "memoryless"), abs=0.01)


@pytest.mark.parametrize(("mu", "workers"), [(0.0, 2), (0.0, 4), (0.5, 4), (-0.5, 8)])
def test_the_mean_square_of_memoryless_runs_shrinks_below_its_limit_and_grows_above(mu: float, workers: int) -> None:
    limit = largest_stable_step(mu, workers - 1, "memoryless")
    below, above = drawn(mu, 0.7 * limit, workers, 80), drawn(mu, 1.5 * limit, workers, 80)
    assert below[0].square().mean() < 0.5 * below[1].square().mean()
    assert above[0].square().mean() > 2.0 * above[1].square().mean()


@grid
@pytest.mark.parametrize("staleness", [0.0, 0.5, 1.0, 3.0, 15.0, 63.0])
def test_memoryless_limits_are_where_their_matrices_say(mu: float, staleness: float) -> None:
    mean, square = mean_stable_step(mu, staleness), largest_stable_step(mu, staleness, "memoryless")
    low, high = (spectral_radius(mu, mean * part, staleness, "memoryless") for part in (1 - 1e-6, 1 + 1e-6))
    assert low < 1.0 < high
    assert square <= mean
    assert mean_square_radius(mu, 0.999 * square, staleness) < 1.0


@pytest.mark.parametrize("mu", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("staleness", [1.0, 3.0, 15.0])
def test_no_memoryless_step_is_faster_than_the_best_either(mu: float, staleness: float) -> None:
    best = spectral_radius(mu, best_step(mu, staleness, "memoryless"), staleness, "memoryless")
    steps = np.linspace(0.0, mean_stable_step(mu, staleness), 400)[1:]
    assert best <= min(spectral_radius(mu, step, staleness, "memoryless") for step in steps) + 1e-6


@pytest.mark.parametrize("wrong", [(1.0, 0), (-1.0, 0), (0.5, -1), (0.5, math.inf), (math.nan, 1)])
@pytest.mark.parametrize("function", [largest_stable_step, stable_bound, mean_stable_step, best_step])
def test_what_is_no_momentum_or_no_staleness_is_refused(function: Any, wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="expected momentum in"):
        function(*wrong)
