"""Update rules against formulas written out in NumPy and against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from psserver.adaptive import Adam, AdamW
from psserver.momentum import MomentumSGD, Nesterov
from psserver.options import RuleOptions
from psserver.rules import Rule
from tuner.layers import Layers, Strides

SIZE = 1000


def step(
    rule: Rule, x: torch.Tensor, previous: torch.Tensor, gradient: torch.Tensor, lr: float, mu: float
) -> torch.Tensor:
    new = torch.empty_like(x)
    rule.begin(lr, mu)
    for start in range(0, SIZE, 300):
        block = slice(start, min(start + 300, SIZE))
        scratch = torch.empty(block.stop - block.start)
        rule.apply(block, new[block], x[block], previous[block], gradient[block], scratch)
    return new


def test_momentum_sgd_is_its_formula_bit_for_bit_in_any_blocks() -> None:
    random = np.random.default_rng(0)
    x, previous, gradient = (random.normal(size=SIZE).astype(np.float32) for _ in range(3))
    new = step(MomentumSGD(), *(torch.from_numpy(v) for v in (x, previous, gradient)), 0.3, -0.7)
    expected = x + (np.float32(-0.7) * (x - previous) - np.float32(0.3) * gradient)
    assert new.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("beta1", [-0.5, 0.0, 0.9])
def test_adam_moves_by_the_learning_rate_at_its_first_step_whatever_beta1(beta1: float) -> None:
    gradient = torch.full((SIZE,), 3.0)
    new = step(Adam(SIZE, RuleOptions(name="adam")), torch.zeros(SIZE), torch.zeros(SIZE), gradient, 0.5, beta1)
    torch.testing.assert_close(new, torch.full((SIZE,), -0.5))


def test_adams_applied_gradient_is_what_the_learning_rate_multiplies() -> None:
    generator = torch.Generator().manual_seed(1)
    rule = Adam(SIZE, RuleOptions(name="adam", beta2=0.9))
    x = torch.zeros(SIZE)
    for _ in range(5):
        x = step(rule, x, x, torch.randn(SIZE, generator=generator), 0.1, 0.0)
    gradient = torch.randn(SIZE, generator=generator)
    new = step(rule, x, x, gradient, 0.1, 0.0)
    torch.testing.assert_close(x - new, 0.1 * rule.applied(gradient, x, lambda v: v), rtol=1e-4, atol=1e-6)


def test_nesterov_goes_on_from_the_point_it_looks_ahead_to() -> None:
    random = np.random.default_rng(4)
    rule, curvature = Nesterov(SIZE), np.linspace(0.1, 1.0, SIZE)
    x = previous = random.normal(size=SIZE)
    y = x
    for _ in range(30):
        new = step(rule, *(torch.tensor(v, dtype=torch.float32) for v in (x, previous, curvature * x)), 0.5, 0.6)
        x, previous, last = new.double().numpy(), x, y
        y = previous - 0.5 * curvature * previous
        np.testing.assert_allclose(x, y + 0.6 * (y - last), atol=2e-6)


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_each_layer_moves_as_it_would_alone_with_its_own_learning_rate(kind: type[Adam]) -> None:
    options = RuleOptions(name="adamw" if kind is AdamW else "adam", weight_decay=0.1 if kind is AdamW else 0.0)
    rule, alone = kind(SIZE, options), [kind(SIZE, options) for _ in range(2)]
    rule.strides = Strides(Layers(SIZE, (400, 600)), (0.5, 3.0))
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(SIZE, generator=draw)
    versions = [x, x]
    for _ in range(3):
        gradient = torch.randn(SIZE, generator=draw)
        new = step(rule, versions[-1], versions[-2], gradient, 0.1, 0.6)
        slow = step(alone[0], versions[-1], versions[-2], gradient, 0.1 * 0.5, 0.6)
        fast = step(alone[1], versions[-1], versions[-2], gradient, 0.1 * 3.0, 0.6)
        torch.testing.assert_close(new[:400], slow[:400], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(new[400:], fast[400:], rtol=1e-6, atol=1e-7)
        versions.append(new)
