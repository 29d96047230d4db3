"""The cubic and the single step against 60 and more digits."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.single_step import cubic, single_step

EXPONENTS = [*range(-300, 301, 20), *(k / 10 for k in range(-120, 121, 7))]


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_cubic_agrees_with_many_digits_in_both_halves(twin: ModuleType, exponent: float) -> None:
    p = 10.0**exponent
    x, z = cubic(p)
    exact_x, exact_z = twin.root(p)
    assert abs(x / exact_x - 1) < 1e-15
    assert abs(z / exact_z - 1) < 1e-15


def test_the_cubic_knows_its_limits() -> None:
    assert cubic(0.0) == (1.0, 0.0)
    assert cubic(math.inf) == (0.0, 1.0)


@pytest.mark.parametrize("p", [-1.0, math.nan])
def test_the_cubic_refuses_what_is_no_ratio(p: float) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        cubic(p)


@given(st.floats(0, allow_infinity=False))
def test_the_halves_of_the_cubic_add_up_to_one(p: float) -> None:
    x, z = cubic(p)
    assert x + z == pytest.approx(1.0, abs=1e-15)


def test_a_wide_curvature_range_alone_sets_the_momentum() -> None:
    alpha, mu = single_step(C=1e-3, D=10.0, h_min=1.0, h_max=81.0)
    assert mu == pytest.approx(0.8**2, rel=1e-14)
    assert alpha == pytest.approx(0.2**2, rel=1e-14)


def test_no_noise_and_no_range_give_newton_s_step() -> None:
    alpha, mu = single_step(C=1e-300, D=1.0, h_min=4.0, h_max=4.0)
    assert mu == pytest.approx(0.0, abs=1e-15)
    assert alpha == 0.25


def test_a_hardly_open_range_loses_no_digits() -> None:
    _, mu = single_step(C=1e-300, D=1.0, h_min=1.0, h_max=1.0 + 1e-9)
    assert mu == pytest.approx((0.25e-9) ** 2, rel=1e-6)


@given(C=st.floats(1e-300, 1e300), D=st.floats(0, 1e150), h=st.floats(1e-150, 1e150), k=st.floats(1, 1e150))
def test_the_single_step_is_always_finite_and_in_range(C: float, D: float, h: float, k: float) -> None:
    alpha, mu = single_step(C, D, h, h * k)
    assert 0.0 <= mu <= 1.0
    assert 0.0 <= alpha <= 1.0 / h


def test_the_minimum_is_a_minimum() -> None:
    C, D, h = 0.3, 1.7, 0.9
    _, mu = single_step(C, D, h, h)

    def cost(m: float) -> float:
        return m * D**2 + ((1 - math.sqrt(m)) ** 2 / h) ** 2 * C

    assert cost(mu) < cost(mu * 0.999)
    assert cost(mu) < cost(mu * 1.001)


@pytest.mark.parametrize(
    "wrong", [(0.0, 1.0, 1.0, 1.0), (1.0, -1.0, 1.0, 1.0), (1.0, 1.0, 0.0, 1.0), (1.0, 1.0, 2.0, 1.0)]
)
def test_the_single_step_refuses_impossible_measurements(wrong: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="expected C > 0"):
        single_step(*wrong)
