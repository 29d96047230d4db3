"""The LSTM's variables: its gradient is the real one, and they follow √μ when the momentum is high."""

from __future__ import annotations

import numpy as np
import pytest

from launch.lab.lstm_rates import Convergence, Passage, converge, kicked


@pytest.fixture(scope="module")
def passage() -> Passage:
    return Passage(hidden=4, sequence=6, batch=2)


def test_the_gradient_is_the_slope_of_the_loss(passage: Passage) -> None:
    x, step = passage.initial, 1e-2
    gradient = passage.gradient(x)
    way = (step * gradient / np.linalg.norm(gradient)).astype(np.float32)
    slope = (passage.loss(x + way) - passage.loss(x - way)) / (2 * step)
    assert slope == pytest.approx(np.linalg.norm(gradient), rel=1e-2)


def test_another_passage_has_another_gradient(passage: Passage) -> None:
    x = passage.initial
    assert np.array_equal(passage.gradient(x), passage.elsewhere(x, 0))
    assert not np.allclose(passage.gradient(x), passage.elsewhere(x, 5000))


def test_higher_momentum_brings_more_variables_to_its_root(passage: Passage) -> None:
    minimum, start = kicked(passage, 500)
    assert np.linalg.norm(start - minimum) == pytest.approx(0.1, rel=1e-3)
    low, high = (converge(passage, start, momentum) for momentum in (0.5, 0.95))
    assert low.share(low.rates) < high.share(high.rates)
    assert len(high.rates) == passage.size


def test_speeds_are_measured_in_units_of_the_root() -> None:
    rates = np.array([0.9, 0.95, 1.0])
    one = Convergence(0.81, np.empty((0, 0)), rates, rates)
    assert one.speeds(rates) == pytest.approx([1.0, 0.5, 0.0])
    assert one.share(rates) == pytest.approx(2 / 3)
