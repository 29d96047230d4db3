"""The tuner as the server uses it: every target with every loop, closed on stale gradients, continued bit-exactly."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tuner import NonFiniteGradient, Settings, Tuner, TunerOptions, build

SIZE = 600
TARGETS = ["yellowfin", "constant", "step", "cosine"]
EVERY = [*TARGETS, "distance"]
LOOPS = ["open", "closed", "both"]


class Run:
    """A quadratic under displacement momentum, whose gradients may be late."""

    def __init__(self, tuner: Tuner, noise: float = 0.1, curvature: float = 1.0) -> None:
        self.tuner, self.noise = tuner, noise
        self.draw = torch.Generator().manual_seed(0)
        self.h = torch.linspace(0.5, 1.0, SIZE) * curvature
        self.xs = [torch.randn(SIZE, generator=self.draw)]
        self.gs: list[Tensor] = []
        tuner.record(0, self.xs[0])

    def step(self, delay: int = 0) -> tuple[Settings, float | None]:
        t = len(self.xs) - 1
        x = self.xs[-1]
        v = max(0, t - delay)
        self.gs.append(self.h * x + self.noise * torch.randn(SIZE, generator=self.draw))
        g = self.gs[v]
        blocks = [slice(0, 250), slice(250, SIZE)]
        for b in blocks:
            self.tuner.look(b, g[b], self.xs[v][b])
        s = self.tuner.decide()
        for b in blocks:
            self.tuner.absorb(b, g[b])
        moved = x - self.xs[-2] if t else torch.zeros(SIZE)
        step = s.learning_rate * s.scale * g
        for part, factor in s.strides.pieces(slice(0, SIZE)) if s.strides is not None else ():
            step[part] *= factor
        self.xs.append(x + s.momentum * moved - step)
        self.tuner.record(t + 1, self.xs[-1])
        return s, self.tuner.measure(v, self.tuner.sample(g) * s.scale)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_with_every_loop_descends_and_measures_its_momentum(target: Any, loop: Any) -> None:
    run = Run(build(TunerOptions(target=target, loop=loop, momentum=0.5), SIZE, updates=200, seed=0))
    for t in range(200):
        settings_, measured = run.step()
        if t and settings_.learning_rate > 1e-3:
            assert measured == pytest.approx(settings_.momentum, abs=1e-3)
    assert run.xs[-1].norm() < 0.9 * run.xs[0].norm()


def test_the_open_loop_applies_the_target_and_the_closed_one_starts_at_zero() -> None:
    opened = Run(build(TunerOptions(target="constant", loop="open"), SIZE, 10, 0)).step()[0]
    closed = Run(build(TunerOptions(target="constant", loop="closed"), SIZE, 10, 0)).step()[0]
    assert (opened.momentum, opened.target_momentum) == (0.8, 0.8)
    assert (closed.momentum, closed.target_momentum) == (0.0, 0.8)


@pytest.mark.parametrize("target", EVERY)
def test_the_factor_multiplies_every_target_at_the_end(target: Any) -> None:
    plain = Run(build(TunerOptions(target=target), SIZE, 10, 0)).step()[0]
    halved = Run(build(TunerOptions(target=target, lr_factor=0.5), SIZE, 10, 0)).step()[0]
    assert halved.learning_rate == 0.5 * plain.learning_rate


@pytest.mark.parametrize(("loop", "told"), [("open", 0.0), ("closed", 7.0), ("both", 7.0)])
def test_with_the_loop_open_the_target_knows_nothing_of_staleness(loop: Any, told: float) -> None:
    tuner = build(TunerOptions(target="distance", loop=loop), SIZE, 10, 0)
    x = torch.ones(SIZE)
    tuner.record(0, x)
    tuner.hear(1.0, 7)
    tuner.look(slice(0, SIZE), x, x)
    tuner.decide()
    average = tuner.target.state_dict()["stale"]
    assert average["total"] / average["weight"] == pytest.approx(told)


def test_the_closed_loop_brings_total_momentum_under_random_delays_to_its_target() -> None:
    options = TunerOptions(target="constant", momentum=0.3, learning_rate=0.02, loop="closed", gain=0.05)
    run = Run(build(options, SIZE, 600, 0), noise=0.0)
    delays = random.Random(0)
    rows = [run.step(delays.randrange(4)) for _ in range(600)][300:]
    measured = [value for _, value in rows if value is not None]
    assert sum(measured) / len(measured) == pytest.approx(0.3, abs=0.01)
    assert sum(row.momentum for row, _ in rows) / len(rows) < 0.29


def test_the_clamp_is_visible() -> None:
    options = TunerOptions(target="constant", momentum=0.9, loop="closed", gain=1.0, momentum_max=0.2)
    run = Run(build(options, SIZE, 10, 0))
    run.step()
    assert run.tuner.clamped is None
    run.step()
    assert run.tuner.clamped == "high"


@pytest.mark.parametrize("target", EVERY)
def test_a_bad_gradient_leaves_the_tuner_as_it_was(target: Any) -> None:
    first, second = (Run(build(TunerOptions(target=target), SIZE, 10, 0)) for _ in range(2))
    first.step()
    second.step()
    first.tuner.look(slice(0, SIZE), torch.full((SIZE,), float("inf")))
    with pytest.raises(NonFiniteGradient):
        first.tuner.decide()
    assert first.step() == second.step()


@given(st.sampled_from(EVERY), st.sampled_from(LOOPS), st.integers(0, 12), st.integers(0, 3), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_restored_tuner_continues_bit_exactly(target: Any, loop: Any, steps: int, delay: int, more: bool) -> None:
    others: Any = {"every": 3, "beside": ("lag", "median")} if more else {"beside": ("regression",)}
    options = TunerOptions(target=target, loop=loop, sample=100, history=6, **others)
    first, second = (Run(build(options, SIZE, 30, seed)) for seed in (0, 1))
    for _ in range(steps):
        first.step(delay)
        second.step()
    second.tuner.load_state_dict(first.tuner.state_dict())
    second.xs, second.gs = list(first.xs), list(first.gs)
    second.draw.set_state(first.draw.get_state())
    for _ in range(6):
        assert first.step(delay) == second.step(delay)


def test_estimators_beside_say_what_they_would_in_use_and_steer_nothing() -> None:
    names: tuple[Any, ...] = ("median", "lag", "regression")
    runs = [Run(build(TunerOptions(target="constant", loop="closed", estimator=name), SIZE, 60, 0)) for name in names]
    options = TunerOptions(target="constant", estimator="lag", beside=names, loop="open")
    together = Run(build(options, SIZE, 60, 0))
    for run in runs:  # the same trajectory for all: that of the loop left open
        run.tuner.loop = together.tuner.loop
    for _ in range(60):
        said = {name: run.step(2)[1] for name, run in zip(names, runs, strict=True)}
        assert together.step(2)[1] == said["lag"]
        assert together.tuner.measured_beside == said
    assert None not in said.values()


def test_every_third_update_is_measured_and_the_others_say_nothing() -> None:
    run = Run(
        build(
            TunerOptions(target="yellowfin", loop="closed", every=3, estimator="lag", beside=("median",)), SIZE, 60, 0
        )
    )
    said = [(run.step(1)[1], run.tuner.measured_beside["median"]) for _ in range(12)]
    assert [one is not None for one, _ in said] == [True, False, False] * 4
    assert [two is not None for _, two in said] == [False, False, False] + [True, False, False] * 3


def test_without_the_robust_rule_there_is_no_guard_and_losses_are_not_heard() -> None:
    published, plain = (
        Run(build(TunerOptions(target="yellowfin", loop="closed", robust=False), SIZE, 60, 0)) for _ in range(2)
    )
    for t in range(40):
        published.tuner.hear(10.0 + t)
        assert published.step(2) == plain.step(2)
    assert published.tuner.guard is None


def leaves(state: Any) -> list[Any]:
    if isinstance(state, dict):
        assert all(isinstance(key, str) for key in state)
        return [leaf for value in state.values() for leaf in leaves(value)]
    if isinstance(state, list):
        return [leaf for value in state for leaf in leaves(value)]
    return [state]


@pytest.mark.parametrize("target", EVERY)
def test_the_state_holds_only_what_a_checkpoint_can_hold(target: Any) -> None:
    run = Run(build(TunerOptions(target=target), SIZE, 30, 0))
    for _ in range(3):
        assert all(isinstance(x, Tensor | float | int | bool | str | None) for x in leaves(run.tuner.state_dict()))
        run.step()


@pytest.mark.parametrize(("target", "names"), [("yellowfin", ["mean"]), ("distance", ["sum", "start"])])
def test_a_state_shares_no_memory_with_the_tuner(target: Any, names: list[str]) -> None:
    run = Run(build(TunerOptions(target=target), SIZE, 30, 0))
    run.step()
    state, twin = run.tuner.state_dict(), Run(build(TunerOptions(target=target), SIZE, 30, 0))
    before = {name: state["target"][name].clone() for name in names}
    twin.tuner.load_state_dict(state)
    run.step()
    twin.step()
    assert all(state["target"][name].equal(before[name]) for name in names)


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        build(TunerOptions(), 0, 10, 0)


@pytest.mark.parametrize("sample", [0, 100])
def test_total_momentum_is_the_momentum_where_layers_differ_in_learning_rate_and_nothing_is_late(sample: int) -> None:
    options = TunerOptions(target="distance", loop="open", momentum=0.5, sample=sample)
    run = Run(build(options, SIZE, 400, 0, layers=(150, 450)))
    run.xs[0][:150] *= 4.0
    run.tuner.record(0, run.xs[0])
    for _ in range(30):
        settings, measured = run.step()
    assert settings.strides is not None
    assert settings.strides.factors[0] > 2 * settings.strides.factors[1]
    assert measured == pytest.approx(0.5, abs=1e-3)


def test_layers_that_are_not_the_whole_model_are_refused() -> None:
    with pytest.raises(ValueError, match="layers: expected positive sizes that add up to 600, got 500"):
        build(TunerOptions(), SIZE, 10, 0, layers=(200, 300))


def test_embeddings_that_are_no_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="embeddings: expected numbers of 2 layers, got"):
        build(TunerOptions(), SIZE, 10, 0, layers=(200, 400), embeddings=(2,))
