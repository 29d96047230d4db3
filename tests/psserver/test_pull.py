"""What SOAP takes back of the way since a gradient was computed: its formula, its limits, and what it is good for."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from torch import Tensor

from psserver.eigenbasis import Eigenbasis, sides
from psserver.options import RuleOptions
from psserver.rules import make_rule
from psserver.soap import Soap, pulled_back
from psserver.trajectory import Trajectory
from psserver.update import Updater
from tuner import Pull, TunerOptions, build
from tuner.beyond import MOST, PULL
from tuner.layers import Layers, Strides

SHAPE, SIZE, RATE = (5, 7), 40, 0.01
OPTIONS = RuleOptions(name="soap", beta2=0.9, shampoo_beta=0.8, precondition_every=3)


def draw(seed: int, size: int = SIZE) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def trained(updates: int = 12) -> Soap:
    """A rule that knows a basis."""
    rule = Soap(SIZE, OPTIONS, ((0, SHAPE),))
    for seed in range(updates):
        rule.begin(RATE, 0.0)
        rule.apply(
            slice(0, SIZE), torch.empty(SIZE), torch.zeros(SIZE), torch.zeros(SIZE), draw(seed), torch.empty(SIZE)
        )
    return rule


def moved(rule: Soap, x: Tensor, gradient: Tensor) -> Tensor:
    new = torch.empty(SIZE)
    rule.begin(RATE, 0.0)
    rule.apply(slice(0, SIZE), new, x, x, gradient, torch.empty(SIZE))
    return new


@pytest.mark.parametrize("part", [0.01, 0.2, 5.0])
def test_it_is_its_formula_in_the_eigenbasis_and_leaves_vectors_alone(part: float) -> None:
    x, origin, gradient = draw(100), draw(101), draw(102)
    plain, pulling = trained(), trained()
    pulling.pull, pulling.origin = Pull(part, MOST), origin
    difference = (moved(plain, x, gradient) - moved(pulling, x, gradient)).double().numpy()
    rows, columns = (basis[0].double().numpy() for basis in pulling._eigenbases[0].bases)
    second = pulling._second[:35].double().numpy().reshape(SHAPE)
    way = rows.T @ (x - origin)[:35].double().numpy().reshape(SHAPE) @ columns
    taken = rows @ (np.minimum(part * second / second.mean(), MOST) * way) @ columns.T
    np.testing.assert_allclose(difference[:35].reshape(SHAPE), taken, atol=1e-5)
    assert np.abs(taken).max() > 1e-3
    assert not difference[35:].any()


def test_a_layer_whose_scale_does_not_matter_is_left_alone() -> None:
    x, origin, gradient = draw(100), draw(101), draw(102)
    plain, left, pulling = trained(), trained(), trained()
    for rule, invariant in ((plain, set[int]()), (left, {0}), (pulling, {1})):
        rule.strides = Strides(Layers(SIZE, (35, 5)), (1.0, 1.0), frozenset(invariant))
    for rule in (left, pulling):
        rule.pull, rule.origin = Pull(0.1, MOST), origin
    expected = moved(plain, x, gradient)
    assert torch.equal(moved(left, x, gradient), expected)
    assert not torch.equal(moved(pulling, x, gradient), expected)


def test_no_more_is_taken_back_than_the_most_along_any_direction() -> None:
    way, tensor = draw(1, 35), trained()._eigenbases[0]
    second = torch.rand(35, generator=torch.Generator().manual_seed(2)) + 0.1
    torch.testing.assert_close(pulled_back(way, tensor, second, Pull(1e6, MOST)), MOST * way)


@pytest.mark.parametrize("second", [0.0, 1e-45, 1e-35, float("inf"), float("nan"), 3e38])
def test_nothing_is_taken_back_by_second_moments_that_say_nothing(second: float) -> None:
    room = sum(side.values for side in sides(SHAPE, 64))
    tensor = Eigenbasis(slice(0, 35), sides(SHAPE, 64), torch.zeros(room), torch.zeros(room))
    seconds = torch.full((35,), second)
    seconds[:3] = 0.0
    assert not pulled_back(draw(1, 35), tensor, seconds, Pull(0.1, MOST)).any()


def updater(loop: str, slots: int = 3) -> Updater:
    options = TunerOptions(target="distance", loop=loop)  # type: ignore[arg-type]
    tuner = build(options, SIZE, 400, 0, (35, 5), turned=35 / 40)
    trajectory = Trajectory(np.linspace(1, 2, SIZE, dtype=np.float32), version=0, slots=slots, directory=None)
    tuner.record(0, trajectory.current.tensor)
    return Updater(trajectory, make_rule(OPTIONS, SIZE, 1, ((0, SHAPE),)), tuner, 0.0)


def pushes(made: Updater, updates: int, workers: int, *, release_first: bool) -> None:
    """M workers without order; each holds its version until its gradient is applied, or is about to be."""
    order, held = random.Random(4), [0] * workers
    for _ in held:
        made.trajectory.hold(0)
    for number in range(updates):
        worker = order.randrange(workers)
        version = held[worker]
        if release_first:
            made.trajectory.release(version)
        made.apply(draw(number) + 0.5, version, 1.0)
        if not release_first:
            made.trajectory.release(version)
        held[worker] = made.trajectory.version
        made.trajectory.hold(held[worker])


def test_the_origin_is_not_written_over_while_it_is_compared_with() -> None:
    last = []
    for slots, release_first in ((3, True), (3, False), (200, True)):
        made = updater("both", slots)
        pushes(made, 120, 6, release_first=release_first)
        last.append(made.trajectory.current.tensor.clone())
    assert torch.equal(last[0], last[1])
    assert torch.equal(last[0], last[2])


@pytest.mark.parametrize(("loop", "workers", "expected"), [("both", 6, True), ("both", 1, False), ("open", 6, False)])
def test_an_updater_pulls_where_the_loop_says_so_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, loop: str, workers: int, expected: bool
) -> None:
    parts: list[float] = []

    def watched(way: Tensor, tensor: Eigenbasis, second: Tensor, pull: Pull) -> Tensor:
        parts.append(pull.part)
        return pulled_back(way, tensor, second, pull)

    monkeypatch.setattr("psserver.soap.pulled_back", watched)
    made = updater(loop)
    pushes(made, 120, workers, release_first=False)
    assert bool(parts) is expected
    assert isinstance(made.rule, Soap)
    assert made.rule.pull is made.rule.origin is None, "nothing is left for the next update"


def test_what_was_taken_back_is_recorded_and_only_where_it_was() -> None:
    made, adam, vector = updater("both"), updater("both"), updater("both")
    adam = Updater(adam.trajectory, make_rule(RuleOptions(name="adam"), SIZE), adam.tuner, 0.0)
    vector = Updater(vector.trajectory, make_rule(OPTIONS, SIZE), vector.tuner, 0.0)
    for each, expected in ((made, True), (adam, False), (vector, False)):
        pushes(each, 100, 6, release_first=False)
        each.trajectory.hold(97)
        found = each.apply(draw(1), 97, 1.0).settings.pull
        assert (found is not None) is expected


def test_a_correction_that_the_user_chose_is_not_made_twice() -> None:
    options = RuleOptions(name="soap", staleness="delay-compensated")
    made = updater("both")
    corrected = Updater(made.trajectory, make_rule(options, SIZE, 1, ((0, SHAPE),)), made.tuner, 0.0)
    assert corrected._pulled is None


def growth(curvature: float, pull: float, delays: list[int]) -> float:
    """|x| after 3,000 steps x_{t+1} = x_t − αh x_v − c (x_t − x_v), over the first one."""
    seen = [1.0]
    for t, delay in zip(range(3000), itertools.cycle(delays), strict=False):
        x, origin = seen[-1], seen[max(0, t - delay)]
        seen.append(x - curvature * origin - pull * (x - origin))
        if abs(seen[-1]) > 1e9:
            break
    return max(abs(x) for x in seen[-100:])


@pytest.mark.parametrize("delays", [[15], [63], [3, 40, 0, 17, 9]])
def test_up_to_twice_the_part_that_is_taken_back_curvature_is_stable_at_any_delay(delays: list[int]) -> None:
    for curvature in (0.5 * MOST, MOST, 1.9 * MOST):
        assert growth(curvature, MOST, delays) < 1.0
    if len(delays) == 1:
        assert growth(MOST, 0.0, delays) > 1e6, "without it is not"


def test_where_no_curvature_is_felt_the_most_alone_is_stable_and_more_than_the_whole_way_is_not() -> None:
    """The way since x_v enters as c times the last τ steps: a polynomial with roots within the circle up to c = 1."""
    for part, stable in ((MOST, True), (1.0, True), (1.1, False)):
        roots = np.roots([1.0, *([part] * 15)])
        assert bool(np.abs(roots).max() < 1.0 + 1e-9) is stable


def test_without_order_a_long_step_leaves_less_noise_behind() -> None:
    """Sixteen workers, a noisy quadratic of a matrix with axes of its own: where a long step leads to in the end."""
    ends = [np.mean([floor(part, seed) for seed in range(3)]) for part in (0.0, PULL / 15)]
    assert ends[1] < 0.85 * ends[0]


def floor(part: float, seed: int) -> float:
    draws, order = np.random.default_rng(seed), random.Random(seed)
    q, p = (np.linalg.qr(draws.normal(size=(8, 8)))[0] for _ in range(2))
    a, b = ((basis * np.logspace(-1, 0, 8)) @ basis.T for basis in (q, p))
    rule = make_rule(RuleOptions(name="soap"), 64, 1, ((0, (8, 8)),))
    assert isinstance(rule, Soap)
    versions = [torch.from_numpy(draws.normal(size=64).astype(np.float32))]
    held, losses = [0] * 16, []
    for _ in range(1000):
        worker = order.randrange(16)
        origin, x, new = versions[held[worker]], versions[-1], torch.empty(64)
        gradient = a @ (origin.numpy().reshape(8, 8) + 0.1 * draws.normal(size=(8, 8))) @ b
        rule.pull, rule.origin = Pull(part, MOST) if part else None, origin
        rule.begin(0.1, -0.3)
        rule.apply(slice(0, 64), new, x, x, torch.from_numpy(gradient.astype(np.float32).reshape(-1)), torch.empty(64))
        versions.append(new)
        held[worker] = len(versions) - 1
        losses.append(float((x.numpy().reshape(8, 8) * (a @ x.numpy().reshape(8, 8) @ b)).sum()))
    return float(np.mean(losses[300:]))
