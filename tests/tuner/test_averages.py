"""Zero-debiased averages."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.averages import Average, LogAverage, Tracked


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


def tracked(values: list[float]) -> Tracked:
    average = Tracked(0.98, 0.9)
    for value in values:
        average.update(value)
    return average


def geometric(mean: float, count: int, seed: int) -> list[float]:
    draws = random.Random(seed)
    return [float(int(draws.expovariate(1.0) * mean + 0.5)) for _ in range(count)]


def test_of_one_distribution_the_tracked_average_is_nearly_always_the_slow_one() -> None:
    average, slow, same = Tracked(0.98, 0.9), Average(0.98), 0
    for value in geometric(3.0, 5000, 1):
        same += average.update(value) == slow.update(value)
    assert same > 0.85 * 5000


def test_a_change_beyond_chance_is_followed_in_a_third_of_the_time_and_back() -> None:
    before, changed, slow = geometric(3.0, 300, 2), [31.0] * 12, Average(0.98)
    for value in before + changed:
        slow.update(value)
    assert slow.value < 10.0
    assert tracked(before + changed).value > 15.0
    assert tracked(before + [31.0] * 200 + [3.0] * 60).value < 4.0


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0])
def test_the_tracked_average_of_a_constant_is_that_constant_and_before_any_it_is_zero(value: float) -> None:
    assert (Tracked(0.98, 0.9).value, Tracked(0.98, 0.9).empty) == (0.0, True)
    assert tracked([value] * 1000).value == pytest.approx(value, rel=1e-9)


def test_a_tracked_average_continues_bit_exactly() -> None:
    first, second = tracked(geometric(5.0, 40, 4)), Tracked(0.98, 0.9)
    second.load_state_dict(first.state_dict())
    for value in geometric(40.0, 20, 5):
        assert first.update(value) == second.update(value)
