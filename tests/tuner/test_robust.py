"""The robust YellowFin target: its gain stays where it was tried, and the scale of the loss changes nothing but α."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tuner import TunerOptions, build
from tuner.robust import GainLimit, LossUnit
from tuner.yellowfin import YellowFinTarget

Gradient = Callable[[Tensor, int], tuple[float, Tensor]]


def quadratic(x: Tensor, t: int) -> tuple[float, Tensor]:
    h = torch.linspace(0.05, 1.0, len(x))
    noise = 0.1 * torch.randn(len(x), generator=torch.Generator().manual_seed(t))
    return float((h * x * x).sum()) / 2, h * x + noise


def network(x: Tensor, t: int) -> tuple[float, Tensor]:
    """A network of 3-8-2 on points whose class is the sign of a product; x are its 50 parameters."""
    draw = torch.Generator().manual_seed(t)
    points = torch.randn(32, 3, generator=draw)
    labels = (points[:, 0] * points[:, 1] > 0).long()
    x = x.clone().requires_grad_()
    hidden = torch.tanh(points @ x[:24].view(3, 8) + x[24:32])
    loss = nn.functional.cross_entropy(hidden @ x[32:48].view(8, 2) + x[48:50], labels)
    (gradient,) = torch.autograd.grad(loss, x)
    return loss.item(), gradient


def train(task: Gradient, scale: float, delay: int = 0, updates: int = 500) -> tuple[list[Tensor], Tensor, Tensor]:
    """The versions, α and μ* of a run on `scale` times the loss, loop open."""
    tuner = build(TunerOptions(target="yellowfin", loop="open"), 50, updates, 0)
    xs = [torch.randn(50, generator=torch.Generator().manual_seed(0))]
    found, whole, chosen = [], slice(0, 50), []
    tuner.record(0, xs[0])
    for t in range(updates):
        found.append(task(xs[t], t))
        v = max(0, t - delay)
        loss, g = found[v][0] * scale, found[v][1] * scale
        tuner.hear(loss)
        tuner.look(whole, g)
        s = tuner.decide()
        tuner.absorb(whole, g)
        xs.append(xs[t] + s.momentum * (xs[t] - xs[max(0, t - 1)]) - s.learning_rate * s.scale * g)
        tuner.record(t + 1, xs[-1])
        tuner.measure(v, tuner.sample(g) * s.scale)
        chosen.append((s.learning_rate, s.target_momentum))
    rates, momenta = torch.tensor(chosen, dtype=torch.float64).T
    return xs, rates, momenta


@pytest.mark.parametrize("delay", [0, 3])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("task", [quadratic, network])
def test_a_multiple_of_the_loss_changes_the_learning_rate_alone(task: Gradient, scale: float, delay: int) -> None:
    # the rounding of float32 grows along a trajectory, so that of the network is compared for less long
    updates = 500 if task is quadratic else 150
    xs, rates, momenta = train(task, 1.0, delay, updates)
    scaled_xs, scaled_rates, scaled_momenta = train(task, scale, delay, updates)
    for x, scaled in zip(xs, scaled_xs, strict=True):
        assert torch.allclose(x, scaled, rtol=1e-2, atol=1e-3)
    assert torch.allclose(momenta, scaled_momenta, atol=1e-2)
    assert torch.allclose(rates, scaled_rates * scale, rtol=1e-2)
    assert xs[-1].norm() != xs[0].norm()


def test_the_published_rule_is_not_scale_free() -> None:
    published, larger = YellowFinTarget(3), YellowFinTarget(3)
    for target, scale in ((published, 1.0), (larger, 10.0)):
        target.look(slice(0, 3), torch.full((3,), scale))
    assert published.decide().learning_rate == pytest.approx(100 * larger.decide().learning_rate)


def alone(updates: int, robust: bool) -> list[tuple[float, float]]:
    """α and μ* for gradients that vanish by a thousand from update 300 on, in a way that has nothing of curvature."""
    target, found = YellowFinTarget(20, robust=robust), []
    for t in range(updates):
        size = 1.0 if t < 300 else max(1e-3, math.exp(-(t - 300) / 100))
        target.look(slice(0, 20), size * torch.randn(20, generator=torch.Generator().manual_seed(t)))
        decision = target.decide()
        target.absorb(slice(0, 20), torch.zeros(20))
        found.append((decision.learning_rate, decision.momentum))
    return found


def test_the_gain_does_not_run_away_as_gradients_vanish() -> None:
    def gain(row: tuple[float, float]) -> float:
        return row[0] / (1.0 - row[1])

    published, robust = alone(4000, False), alone(4000, True)
    assert gain(published[-1]) > 100 * gain(published[299])
    assert max(map(gain, robust[300:])) < 3 * gain(robust[299])


def test_the_limit_lowers_the_momentum_first_and_then_the_learning_rate() -> None:
    limit = GainLimit(free=10)
    assert [limit.limit(0.1, 0.5) for _ in range(10)] == [(0.1, 0.5)] * 10
    assert limit.limit(0.1, 0.9) == (pytest.approx(0.1), pytest.approx(0.5))
    assert limit.limit(3.0, 0.9) == (pytest.approx(0.2), pytest.approx(0.0))
    assert limit.limit(0.01, 0.5) == (0.01, 0.5)


def test_the_limit_bears_a_rate_of_nothing_and_a_momentum_of_one() -> None:
    limit = GainLimit(free=1)
    assert limit.limit(0.0, 1.0) == (0.0, 1.0)
    assert limit.limit(1e-300, 1.0) == (1e-300, 1.0)
    assert limit.limit(0.1, 0.5) == (0.1, 0.5)
    assert limit.limit(1e-3, 1.0) == (pytest.approx(1e-3), pytest.approx(1 - 5e-3))


def test_the_unit_is_a_quarter_of_the_mean_of_the_first_losses() -> None:
    unit = LossUnit(window=2)
    assert [unit.take(loss) for loss in (4.0, -8.0, 1e9, math.nan)] == [1.0, 1.5, 1.5, 1.5]


def test_without_losses_or_with_ones_that_say_nothing_the_unit_is_one() -> None:
    unit = LossUnit(window=3)
    assert [unit.take(loss) for loss in (None, 0.0, math.inf, 5.0)] == [1.0] * 4


def test_states_of_both_continue() -> None:
    limit, unit = GainLimit(2), LossUnit(4)
    for t in range(3):
        limit.limit(0.1 + t, 0.5)
        unit.take(1.0 + t)
    second, other = GainLimit(2), LossUnit(4)
    second.load_state_dict(limit.state_dict())
    other.load_state_dict(unit.state_dict())
    assert second.limit(5.0, 0.9) == limit.limit(5.0, 0.9)
    assert other.take(9.0) == unit.take(9.0)
