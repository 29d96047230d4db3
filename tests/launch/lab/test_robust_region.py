"""The robust region: eigenvalues, closed forms and the real server agree within the tolerance that is stated."""

from __future__ import annotations

import math

import numpy as np
import pytest

from launch.lab.robust_region import TOLERANCE, decay_rate, largest_stable, rates, region, spectral_radius


@pytest.mark.parametrize("momentum", [0.1, 0.5, 0.9])
def test_inside_the_region_the_radius_is_the_root_of_the_momentum(momentum: float) -> None:
    inside = np.linspace(*region(momentum), 30)[1:-1]
    assert spectral_radius(momentum, inside) == pytest.approx(math.sqrt(momentum), abs=1e-9)
    low, high = region(momentum)
    assert (spectral_radius(momentum, np.array([0.9 * low, 1.01 * high])) > math.sqrt(momentum) + 1e-3).all()


@pytest.mark.parametrize(("momentum", "delay"), [(0.3, 0), (0.9, 0), (0.5, 3)])
def test_the_real_server_converges_at_the_spectral_radius(momentum: float, delay: int) -> None:
    found = rates(momentum, np.linspace(0.02, 0.98, 24), delay)
    assert found.apart < TOLERANCE
    assert found.inside.any() == (delay == 0)
    assert np.abs(found.server - math.sqrt(momentum))[found.inside].max(initial=0.0) < TOLERANCE


@pytest.mark.parametrize("momentum", [-0.5, 0.0, 0.9])
def test_without_delay_twice_one_plus_momentum_is_stable(momentum: float) -> None:
    assert largest_stable(momentum, 0) == pytest.approx(2 * (1 + momentum), rel=1e-6)


@pytest.mark.parametrize("delay", [1, 3, 15])
def test_with_a_delay_the_bound_of_gradient_descent_is_the_known_one(delay: int) -> None:
    assert largest_stable(0.0, delay) == pytest.approx(2 * math.sin(math.pi / (4 * delay + 2)), rel=1e-6)


def test_the_rate_of_a_known_decay_is_found() -> None:
    t = np.arange(200)[:, None]
    known = np.array([0.95, 0.8])
    trajectory = (known**t * np.cos(0.7 * t)).astype(np.float32)
    assert decay_rate(trajectory, 2) == pytest.approx(known, abs=2e-3)
