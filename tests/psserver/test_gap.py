"""Gap-Aware: the penalty by hand, whole runs by formula, and a state that continues."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from psserver.gap import GapAware, penalise, usual_step
from psserver.momentum import MomentumSGD
from psserver.options import RuleOptions
from psserver.rules import make_rule, state_vectors
from psserver.trajectory import Trajectory
from psserver.update import Updater
from tuner import TunerOptions, build

SIZE, RATE, MOMENTUM, GAMMA, EPSILON = 30, 0.05, 0.5, 0.9, 1e-8
OPTIONS = RuleOptions("momentum_sgd", staleness="gap-aware", gap_decay=GAMMA, epsilon=EPSILON)


def updater(options: RuleOptions = OPTIONS) -> Updater:
    start = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
    constant = TunerOptions(target="constant", learning_rate=RATE, momentum=MOMENTUM, loop="open", sample=0)
    tuner = build(constant, SIZE, 1000, 0)
    trajectory = Trajectory(start.numpy(), version=0, slots=3, directory=None)
    tuner.record(0, trajectory.current.tensor)
    return Updater(trajectory, make_rule(options, SIZE), tuner, 0.0)


def gradients(count: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(2)
    return [torch.randn(SIZE, generator=random) for _ in range(count)]


def test_a_gradient_whose_parameter_moved_by_three_usual_steps_counts_a_quarter() -> None:
    g, x, origin = torch.tensor([8.0, -8.0, 8.0]), torch.tensor([1.0, 1.0, 5.0]), torch.tensor([-0.5, 1.5, 5.0])
    usual = torch.full((3,), 0.5)
    assert penalise(g, x, origin, usual, torch.empty(3)).tolist() == [2.0, -4.0, 8.0]


def test_the_usual_step_is_a_root_mean_square_at_the_largest_learning_rate() -> None:
    second = torch.tensor([9.0, 0.0])
    assert usual_step(second, 4.0, 0.5, 0.25, torch.empty(2)).tolist() == [3.125, 0.125]


def test_where_nothing_ever_moved_the_usual_step_can_still_divide() -> None:
    usual = usual_step(torch.zeros(2), 1.0, 0.0, EPSILON, torch.empty(2))
    assert penalise(torch.ones(2), torch.ones(2), torch.ones(2), usual, torch.empty(2)).tolist() == [1.0, 1.0]


def test_steps_are_counted_at_the_learning_rate_that_made_them_and_taken_at_the_largest() -> None:
    rule, whole = GapAware(MomentumSGD(), 1, 0.5, EPSILON), slice(0, 1)
    start, first, second, scratch = torch.zeros(1), torch.empty(1), torch.empty(1), torch.empty(1)
    rule.arrive(0, None)
    rule.begin(0.5, 0.0)
    rule.apply(whole, first, start, start, torch.tensor([2.0]), scratch)
    rule.arrive(1, start)
    rule.begin(0.25, 0.0)  # v = (−1 / 0.5)² = 4 and C = 0.5 · 2, so moving by 1 halves the gradient
    rule.apply(whole, second, first, start, torch.tensor([8.0]), scratch)
    assert (first.item(), second.item()) == (-1.0, -2.0)


def test_twenty_updates_are_the_formula() -> None:
    made = updater()
    versions = [made.trajectory.current.values.astype(np.float64)]
    second, slowed = np.zeros(SIZE), 0.0
    for t, gradient in enumerate(gradients(20)):
        staleness = min((0, 1, 2)[t % 3], t)  # x_{t-2} is the oldest version that three slots hold
        x, previous, origin = versions[t], versions[max(t - 1, 0)], versions[t - staleness]
        if t:
            second = GAMMA * second + (1 - GAMMA) * ((x - previous) / RATE) ** 2
        usual = RATE * (np.sqrt(second / (1 - GAMMA**t if t else 1.0)) + EPSILON)
        penalty = 1 + np.abs(x - origin) / usual
        slowed = max(slowed, float(np.median(penalty)))
        versions.append(x + MOMENTUM * (x - previous) - RATE * gradient.numpy() / penalty)
        made.apply(gradient, t - staleness)
    np.testing.assert_allclose(made.trajectory.current.values, versions[-1], rtol=2e-5, atol=2e-5)
    assert slowed > 1.5


@pytest.mark.parametrize("name", ["momentum_sgd", "adam"])
def test_its_state_continues_bit_for_bit_and_is_as_large_as_it_says(name: str) -> None:
    options = RuleOptions(name="adam" if name == "adam" else "momentum_sgd", staleness="gap-aware", gap_decay=GAMMA)
    made, again = updater(options), updater(options)
    first, then = gradients(8), gradients(12)[8:]
    for gradient in first:
        made.apply(gradient, made.trajectory.version)
    state = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in made.rule.state_dict().items()}
    assert sum(isinstance(v, torch.Tensor) for v in state.values()) == state_vectors(options)
    again.rule.load_state_dict(state)
    now = made.trajectory
    resumed = Trajectory(now.current.values.copy(), version=now.version, slots=3, directory=None)
    resumed.restore_previous(now.previous.values.copy())
    again.trajectory = resumed
    for gradient in then:
        for each in (made, again):
            each.apply(gradient, each.trajectory.version - 1)
        assert torch.equal(made.trajectory.current.tensor, resumed.current.tensor)
