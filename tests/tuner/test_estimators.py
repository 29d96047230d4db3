"""One contract for the three estimators of total momentum."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tuner.estimator import Estimator
from tuner.from_options import build
from tuner.lag import Lag
from tuner.options import TunerOptions
from tuner.regression import Regression
from tuner.total_momentum import TotalMomentum

SIZE = 300
MADE = {
    "median": lambda: TotalMomentum(SIZE, sample=100, history=64, seed=0),
    "lag": Lag,
    "regression": lambda: Regression(SIZE, sample=100, history=64, seed=0),
}
each = pytest.mark.parametrize("name", MADE)


class Walk:
    """A noisy quadratic whose gradients are late; goes on where it was left."""

    def __init__(self, mu: float, delay: int) -> None:
        self.mu, self.delay = mu, delay
        self.draw = torch.Generator().manual_seed(0)
        self.xs = [torch.randn(SIZE, generator=self.draw)]
        self.gs: list[Tensor] = []

    def go(self, updates: int, *estimators: Estimator) -> list[list[float | None]]:
        said = []
        for _ in range(updates):
            t = len(self.gs)
            if not t:
                for one in estimators:
                    one.record(0, one.sample(self.xs[0]), 0.0)
            self.gs.append(self.xs[-1] + torch.randn(SIZE, generator=self.draw))
            v = max(0, t - self.delay)
            self.xs.append(self.xs[-1] + self.mu * (self.xs[-1] - self.xs[max(0, t - 1)]) - 0.05 * self.gs[v])
            for one in estimators:
                one.record(t + 1, one.sample(self.xs[-1]), 0.05, self.mu)
            said.append([one.measure(v, one.sample(self.gs[v])) for one in estimators])
        return said


def weight(value: Any) -> int:
    """Bytes of the tensors and numbers of a state."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 8 + sum(weight(part) for part in parts)


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return first.equal(second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return bool(first == second)


@each
@pytest.mark.parametrize("mu", [-0.5, 0.0, 0.8])
def test_without_staleness_it_is_the_momentum(name: str, mu: float) -> None:
    said = [one for (one,) in Walk(mu, 0).go(60, MADE[name]()) if one is not None]
    assert len(said) > 30
    assert said == pytest.approx([mu] * len(said), abs=1e-4)


@each
def test_staleness_never_lowers_it(name: str) -> None:
    said = [one for (one,) in Walk(0.0, 5).go(400, MADE[name]())[200:] if one is not None]
    assert sum(said) / len(said) > 0.0


@each
def test_a_restored_estimator_continues_bit_for_bit(name: str) -> None:
    walk, first, second = Walk(0.3, 4), MADE[name](), MADE[name]()
    walk.go(100, first)
    state = first.state_dict()
    second.load_state_dict(state)
    assert same(second.state_dict(), state)
    said = walk.go(100, first, second)
    assert all(one == two for one, two in said)
    assert said[-1][0] is not None
    assert same(first.state_dict(), second.state_dict())


@each
def test_a_state_shares_no_memory_with_the_estimator(name: str) -> None:
    walk, one = Walk(0.3, 1), MADE[name]()
    walk.go(100, one)
    state, twin = one.state_dict(), MADE[name]()
    twin.load_state_dict(one.state_dict())
    walk.go(20, one)
    assert same(state, twin.state_dict())


@each
def test_its_memory_does_not_grow(name: str) -> None:
    walk, one = Walk(0.3, 2), MADE[name]()
    walk.go(100, one)
    before = weight(one.state_dict())
    walk.go(150, one)
    assert weight(one.state_dict()) == before


@each
def test_it_remembers_the_newest_version_only_as_far_as_it_was_recorded(name: str) -> None:
    one = MADE[name]()
    Walk(0.0, 0).go(10, one)
    assert one.holds(10)
    assert not one.holds(11)


@each
def test_the_options_name_it(name: Any) -> None:
    assert type(build(TunerOptions(loop="closed", estimator=name), SIZE, 10, 0).estimator) is type(MADE[name]())


def test_the_table_of_biases_has_a_column_for_each(table: ModuleType) -> None:
    assert list(table.estimators()) == list(MADE)
    assert table.cost(size=64, updates=30).keys() == MADE.keys()
