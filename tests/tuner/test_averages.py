"""Zero-debiased averages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.averages import Average, LogAverage


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0.0, 0.9999))
def test_the_average_is_the_weighted_mean(values: list[float], beta: float) -> None:
    average = Average(beta)
    for value in values:
        average.update(value)
    weights = [beta ** (len(values) - 1 - i) for i in range(len(values))]
    mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert average.value == pytest.approx(mean, rel=1e-9, abs=1e-6)


def test_the_average_of_a_constant_is_that_constant() -> None:
    average = Average(0.999)
    for _ in range(5000):
        assert average.update(0.1) == pytest.approx(0.1, rel=1e-12)


def test_the_logarithmic_average_of_two_is_near_their_geometric_mean() -> None:
    average = LogAverage(0.999)
    average.update(1e-8)
    assert average.update(1e8) == pytest.approx(1.0, rel=0.02)


def test_an_average_before_its_first_value_is_zero() -> None:
    assert Average(0.9).value == 0.0
    assert LogAverage(0.9).value == 0.0


@pytest.mark.parametrize("kind", [Average, LogAverage])
def test_an_average_continues_bit_exactly(kind: type[Average]) -> None:
    first, second = kind(0.99), kind(0.99)
    for value in (0.1, 3.0, 7.7):
        first.update(value)
    second.load_state_dict(first.state_dict())
    assert second.update(0.3) == first.update(0.3)
