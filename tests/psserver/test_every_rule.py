"""What holds of every update rule: torch's versions, total momentum without staleness, a state that continues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

from psserver.adaptive import ScaledStep, scaled_momentum
from psserver.options import RuleOptions
from psserver.rule_state import Attributed, Preconditioned
from psserver.rules import make_rule, state_vectors
from psserver.trajectory import Trajectory
from psserver.update import Update, Updater
from tuner import TunerOptions, build

NAMES = get_args(get_type_hints(RuleOptions)["name"])
AVERAGING = (
    "adam",
    "adamw",
    "soap",
    "prodigy",
    "schedule_free_sgd",
    "schedule_free_adamw",
)  # whose momentum is no displacement's
SIZE, RATE, DECAY = 3000, 0.003, 0.01
Optimizer = Callable[[list[torch.nn.Parameter], float], torch.optim.Optimizer]

TORCH: dict[str, Optimizer] = {
    "momentum_sgd": lambda p, mu: torch.optim.SGD(p, RATE, momentum=mu, weight_decay=DECAY),
    "nesterov": lambda p, mu: torch.optim.SGD(p, RATE, momentum=mu, weight_decay=DECAY, nesterov=mu > 0),
    "rmsprop": lambda p, mu: torch.optim.RMSprop(p, RATE, alpha=0.98, momentum=mu, weight_decay=DECAY, eps=1e-6),
    "adagrad": lambda p, mu: torch.optim.Adagrad(p, RATE, weight_decay=DECAY, eps=1e-6),
    "adam": lambda p, mu: torch.optim.Adam(p, RATE, betas=(mu, 0.98), weight_decay=DECAY, eps=1e-6),
    "adamw": lambda p, mu: torch.optim.AdamW(p, RATE, betas=(mu, 0.98), weight_decay=DECAY, eps=1e-6),
    "dana_slim": lambda p, mu: torch.optim.SGD(p, RATE, momentum=mu, weight_decay=DECAY, nesterov=mu > 0),
    "ormo": lambda p, mu: torch.optim.SGD(p, RATE, momentum=mu, weight_decay=DECAY),
}


def rule_options(name: str) -> RuleOptions:
    values: dict[str, Any] = {"name": name, "weight_decay": DECAY, "rho": 0.98, "beta2": 0.98, "epsilon": 1e-6}
    return RuleOptions(**values)


def attribute(rule: Any, version: int) -> None:
    """What an Updater tells a rule that asks for it, of one worker without staleness."""
    if isinstance(rule, Attributed):
        rule.attribute(0, version, version)


class Worker:
    """One worker without staleness, on a noisy quadratic, whose gradients go through an Updater."""

    def __init__(self, options: RuleOptions, momentum: float, updates: int) -> None:
        self.random = torch.Generator().manual_seed(5)
        self.start = torch.randn(SIZE, generator=self.random).mul_(0.1)
        self.curvature = torch.logspace(-2, 0, SIZE)
        tuner = build(
            TunerOptions(target="constant", learning_rate=RATE, momentum=momentum, loop="open", sample=0),
            SIZE, updates, 0,
        )  # fmt: skip
        trajectory = Trajectory(self.start.numpy(), version=0, slots=3, directory=None)
        tuner.record(0, trajectory.current.tensor)
        self.updater = Updater(trajectory, make_rule(options, SIZE), tuner, options.gradient_decay)

    @property
    def x(self) -> torch.Tensor:
        return self.updater.trajectory.current.tensor

    def gradient(self) -> torch.Tensor:
        return self.curvature * self.x + 0.3 * torch.randn(SIZE, generator=self.random)

    def updates(self, count: int) -> Iterator[tuple[torch.Tensor, Update]]:
        for _ in range(count):
            gradient = self.gradient()
            yield gradient, self.updater.apply(gradient, self.updater.trajectory.version)


@pytest.fixture
def double() -> Iterator[None]:
    """New tensors are float64, in which rounding hides nothing."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("name", TORCH)
def test_it_makes_torchs_versions_while_the_settings_stay(name: str, momentum: float) -> None:
    momentum *= name != "adagrad"  # torch's has none; the next test is by formula
    random, options, size = torch.Generator().manual_seed(5), rule_options(name), 50
    x = previous = torch.randn(size, generator=random)
    start, curvature = x, torch.logspace(-2, 0, size)
    parameter = torch.nn.Parameter(x.clone())
    optimizer, rule = TORCH[name]([parameter], momentum), make_rule(options, size)
    for version in range(200):
        attribute(rule, version)
        parameter.grad = curvature * x + 0.3 * torch.randn(size, generator=random)
        decayed, new = parameter.grad + options.gradient_decay * x, torch.empty(size)
        rule.begin(RATE, momentum)
        rule.apply(slice(0, size), new, x, previous, decayed, torch.empty(size))
        x, previous = new, x
        optimizer.step()
    assert float((x - start).norm()) > 0.1, "it moved"
    torch.testing.assert_close(x, parameter.detach(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("keep", [1.0, 0.9])
def test_scaled_momentum_is_its_formula(keep: float) -> None:
    random = np.random.default_rng(0)
    x = previous = random.normal(size=50)
    square = np.zeros(50)
    second = torch.zeros(50, dtype=torch.float64)
    take = 1.0 if keep == 1.0 else 1.0 - keep
    for _ in range(20):
        gradient = random.normal(size=50)
        square = keep * square + take * gradient**2
        expected = x - 0.4 * (x - previous) - 0.1 * gradient / (np.sqrt(square) + 1e-3)
        new, scratch = torch.empty(50, dtype=torch.float64), torch.empty(50, dtype=torch.float64)
        step = ScaledStep(0.1, -0.4, 1e-3, keep, take)
        scaled_momentum(new, *(torch.from_numpy(v) for v in (x, previous, gradient)), second, step, scratch)
        np.testing.assert_allclose(new.numpy(), expected, rtol=1e-12)
        x, previous = expected, x


@pytest.mark.parametrize("momentum", [-0.3, 0.0, 0.5])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in AVERAGING])
def test_without_staleness_its_total_momentum_is_its_momentum(name: str, momentum: float) -> None:
    worker = Worker(rule_options(name), momentum, 60)
    measured = [update.total_momentum for _, update in worker.updates(60)]
    assert measured[0] is None
    assert measured[2:] == pytest.approx([momentum] * 58, abs=1e-4)


@pytest.mark.parametrize("momentum", [-0.3, 0.0, 0.5])
@pytest.mark.parametrize("name", ["adam", "adamw", "soap"])
def test_adams_is_nearly_that_once_its_averages_are_long(name: str, momentum: float) -> None:
    options = RuleOptions(**{**vars(rule_options(name)), "beta2": 0.999, "epsilon": 1e-8})
    worker = Worker(options, momentum, 200)
    measured = [update.total_momentum for _, update in worker.updates(200)]
    assert measured[180:] == pytest.approx([momentum] * 20, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_its_state_continues_bit_for_bit_and_is_as_large_as_it_says(name: str) -> None:
    options = rule_options(name)
    worker = Worker(options, 0.5, 20)
    for _ in worker.updates(7):
        pass
    state = worker.updater.rule.state_dict()
    vectors = [value for value in state.values() if isinstance(value, torch.Tensor)]
    assert [vector.numel() for vector in vectors if vector.numel()] == [SIZE] * state_vectors(options)
    again = make_rule(options, SIZE)
    again.load_state_dict({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()})
    trajectory, gradient, block = worker.updater.trajectory, worker.gradient(), slice(0, SIZE)
    x, previous = trajectory.current.tensor, trajectory.previous.tensor
    made = []
    for rule in (worker.updater.rule, again):
        new = torch.empty(SIZE)
        attribute(rule, 7)
        rule.begin(0.1, 0.7)
        rule.apply(block, new, x, previous, gradient, torch.empty(SIZE))
        around = rule.around(torch.arange(len(x))) if isinstance(rule, Preconditioned) else slice(None)
        made += [new, rule.applied(gradient[around], x, torch.clone)]
    assert torch.equal(made[0], made[2])
    assert torch.equal(made[1], made[3])
    for left, right in zip(worker.updater.rule.state_dict().items(), again.state_dict().items(), strict=True):
        assert left[0] == right[0]
        assert torch.equal(torch.as_tensor(left[1]), torch.as_tensor(right[1]))


@pytest.mark.parametrize("name", [name for name in NAMES if state_vectors(RuleOptions(name=name))])
def test_a_state_of_another_size_is_refused(name: str) -> None:
    rule, zeros = make_rule(rule_options(name), 4), torch.zeros(4)
    rule.begin(RATE, 0.5)
    rule.apply(slice(0, 4), torch.empty(4), zeros, zeros, zeros, torch.empty(4))
    state = rule.state_dict()
    with pytest.raises(ValueError, match="expected 3 values"):
        make_rule(rule_options(name), 3).load_state_dict(state)


@pytest.mark.parametrize("name", NAMES)
def test_decoupled_decay_is_kept_out_of_the_gradient(name: str) -> None:
    decoupled = name in ("adamw", "schedule_free_adamw", "prodigy")
    assert rule_options(name).gradient_decay == (0.0 if decoupled else DECAY)
