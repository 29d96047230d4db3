"""Corrections for stale gradients: by hand, without effect on fresh gradients, and as the estimator is told."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

from psserver import RuleOptions
from psserver.rules import make_rule
from psserver.staleness import compensate, inverse_rate
from psserver.trajectory import Trajectory
from psserver.update import Updater
from psserver.wire import Parameters, Refusal
from tests.psserver.conftest import SIZE, Rows, ServerFactory, Talker
from tuner import NonFiniteGradient, TunerOptions, build

HINTS = get_type_hints(RuleOptions)
RULES = get_args(HINTS["name"])
CORRECTIONS = [name for name in get_args(HINTS["staleness"]) if name not in ("none", "threshold")]
RATE, MOMENTUM, DECAY, LENGTH = 0.05, 0.5, 0.01, 40


def options(**values: Any) -> RuleOptions:
    return RuleOptions(**{"name": "momentum_sgd", "weight_decay": DECAY, "compensation": 0.5, **values})


class Stale:
    """An Updater whose gradients were computed some versions ago; `applied` is what its tuner is told of the last."""

    def __init__(self, rule: RuleOptions, slots: int = 3, size: int = LENGTH, hold: int = 6) -> None:
        self.hold = hold
        self.random = torch.Generator().manual_seed(3)
        start = torch.randn(size, generator=self.random)
        constant = TunerOptions(target="constant", learning_rate=RATE, momentum=MOMENTUM, loop="open", sample=0)
        tuner = build(constant, size, 1000, 0)
        self.trajectory = Trajectory(start.numpy(), version=0, slots=slots, directory=None)
        tuner.record(0, self.trajectory.current.tensor)
        self.updater = Updater(self.trajectory, make_rule(rule, size), tuner, rule.gradient_decay)
        self.versions = [start]
        self.applied = torch.empty(0)
        measure = tuner.measure

        def listen(version: int, applied: torch.Tensor) -> float | None:
            self.applied = applied.clone()
            return measure(version, applied)

        tuner.measure = listen  # type: ignore[method-assign]

    def update(self, staleness: int, gradient: torch.Tensor | None = None) -> torch.Tensor:
        """Apply a gradient that is that stale, or as stale as can be; the newest `hold` versions are held."""
        now = self.trajectory.version
        if self.hold:
            self.trajectory.hold(now)
        if self.hold and now >= self.hold:
            self.trajectory.release(now - self.hold)
        if gradient is None:
            gradient = torch.randn(self.versions[0].numel(), generator=self.random)
        self.updater.apply(gradient, max(now - staleness, 0))
        self.versions.append(self.trajectory.current.tensor.clone())
        return gradient


def test_the_inverse_rate_is_divided_by_the_staleness_once_it_is_above_one() -> None:
    assert [inverse_rate(0.6, staleness) for staleness in (0, 1, 2, 3)] == [0.6, 0.6, 0.3, 0.6 / 3]


def test_compensation_is_its_formula() -> None:
    g, x, origin = torch.tensor([2.0, -3.0, 0.5]), torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.5, 3.0, 4.0])
    out = compensate(g, x, origin, 0.5, torch.empty(3))
    assert out.tolist() == [2.0 + 0.5 * 4.0 * 0.5, -3.0 + 0.5 * 9.0 * -1.0, 0.5]


def test_compensation_finds_the_gradient_where_the_squared_gradient_is_the_curvature() -> None:
    """f = log x has f'' = −f'², so λ = −1 makes it the Taylor expansion: a small step is right to second order."""
    x, origin = torch.tensor([1.01]), torch.tensor([1.0])
    guess = compensate(1.0 / origin, x, origin, -1.0, torch.empty(1))
    assert abs(float(guess - 1.0 / x)) < 1.1e-4
    assert abs(float(1.0 / origin - 1.0 / x)) > 9e-3


def test_three_workers_by_hand_with_the_inverse_rate(make_server: ServerFactory) -> None:
    server = make_server(
        workers=3, rule=RuleOptions("momentum_sgd", staleness="inverse"), learning_rate=0.25, momentum=0.0
    )
    workers = [Talker(server, key) for key in "abc"]
    for worker in workers:
        worker.pull()
    for worker in workers:  # τ = 0, 1, 2
        worker.push(8.0)
    np.testing.assert_array_equal(server.trajectory.current.values, np.arange(SIZE) - 2.0 - 2.0 - 1.0)


def test_many_workers_by_formula_with_compensation_bit_for_bit(make_server: ServerFactory) -> None:
    """Every version that a worker computes at is handed back before its gradient is applied, and must not be lost."""
    rule = RuleOptions("momentum_sgd", 0.25, staleness="delay-compensated", compensation=0.5)
    server = make_server(workers=4, rule=rule, learning_rate=0.0625, momentum=0.5, updates=1000)
    workers = [Talker(server, key) for key in "abcd"]
    for worker in workers:
        worker.pull()
    random = np.random.default_rng(1)
    versions: list[Any] = [np.arange(SIZE, dtype=np.float32)] * 2
    stalest = 0
    half, quarter, sixteenth = np.float32(0.5), np.float32(0.25), np.float32(0.0625)
    for _ in range(200):
        worker = workers[random.integers(4)]
        assert worker.given is not None
        version, now = worker.given.version, server.version
        g = random.normal(size=SIZE).astype(np.float32)
        x, previous, origin = versions[-1], versions[-2], versions[version + 1]
        fixed = (x - origin) * g * g * half + g
        versions.append(x + ((x - previous) * half - (fixed + quarter * x) * sixteenth))
        worker.push(g)
        stalest = max(stalest, now - version)
        assert server.trajectory.current.values.tobytes() == versions[-1].tobytes()
    assert stalest > 4
    assert server.trajectory.slots <= 4 + 4


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("name", RULES)
def test_fresh_gradients_make_the_same_versions_bit_for_bit(name: str, correction: str) -> None:
    plain, corrected = Stale(options(name=name)), Stale(options(name=name, staleness=correction))
    for _ in range(12):
        plain.update(0)
        corrected.update(0)
        assert torch.equal(plain.versions[-1], corrected.versions[-1])
        assert torch.equal(plain.applied, corrected.applied)


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("name", ["momentum_sgd", "nesterov", "rmsprop"])
def test_the_estimator_is_told_what_alpha_multiplied(name: str, correction: str) -> None:
    stale, plain = Stale(options(name=name, staleness=correction)), Stale(options(name=name))
    for staleness in (0, 1, 2, 4, 3, 0, 5, 2, 1):
        stale.update(staleness)
        plain.update(staleness)
        x = stale.versions
        inertia = MOMENTUM * (x[-2] - x[-3]) if len(x) > 2 else 0.0
        torch.testing.assert_close(x[-2] + inertia - RATE * stale.applied, x[-1], rtol=1e-5, atol=1e-6)
    assert float((stale.versions[-1] - plain.versions[-1]).abs().max()) > 1e-3, "the correction did something"


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_the_new_version_is_not_written_over_the_one_that_is_compared_with(correction: str) -> None:
    stale = Stale(options(staleness=correction), hold=0)
    for _ in range(8):  # with three slots, x_{t-2} is the memory that is free
        stale.update(2)
        x = stale.versions
        inertia = MOMENTUM * (x[-2] - x[-3]) if len(x) > 2 else 0.0
        torch.testing.assert_close(x[-2] + inertia - RATE * stale.applied, x[-1], rtol=1e-5, atol=1e-6)
    assert stale.trajectory.slots <= 4


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_versions_do_not_depend_on_where_they_lie_in_memory(correction: str) -> None:
    few, many = (Stale(options(name="adam", staleness=correction), slots, 70_001) for slots in (3, 30))
    for staleness in (0, 1, 2, 4, 3, 5):
        few.update(staleness)
        many.update(staleness)
    assert torch.equal(few.versions[-1], many.versions[-1])


def test_a_gradient_that_cannot_be_compensated_leaves_everything_as_it_was() -> None:
    stale = Stale(options(staleness="delay-compensated"))
    for _ in range(3):
        stale.update(0)
    before, now = stale.versions[-1], stale.trajectory.version
    held = stale.trajectory.at(1)
    assert held is not None
    holders = held.holders
    with pytest.raises(NonFiniteGradient):
        stale.updater.apply(torch.full((LENGTH,), 1e20), 1)
    assert stale.trajectory.version == now
    assert held.holders == holders
    assert torch.equal(stale.trajectory.current.tensor, before)


DISTANCE = TunerOptions(target="distance", loop="both")


@pytest.mark.parametrize("correction", ["none", *CORRECTIONS, "target"])
def test_a_gradient_is_refused_only_if_its_version_is_needed_and_gone(
    correction: str, make_server: ServerFactory, rows: Rows
) -> None:
    rule: RuleOptions = options(staleness="none" if correction == "target" else correction, name="adam")
    tuner = DISTANCE if correction == "target" else None
    first = make_server(workers=2, rule=rule, tuner=tuner)
    slow, fast = Talker(first, "slow"), Talker(first, "fast")
    slow.pull()
    fast.pull()
    for _ in range(5):
        fast.push(1.0)
    second = make_server(workers=2, rule=rule, tuner=tuner, resume=first.state_dict())
    slow, fast = Talker(second, "slow", 0), Talker(second, "fast", 1)
    gone = slow.push(1.0, session=first.session, version=0)
    kept = fast.push(1.0, session=first.session, version=4)
    assert isinstance(gone, Refusal) == (correction in ("delay-compensated", "gap-aware", "target"))
    assert isinstance(kept, Parameters)
    assert rows.refusals == [] or rows.refusals[-1][-1] == "stale"
