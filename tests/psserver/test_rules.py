"""Update rules against formulas written out in NumPy and against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from psserver.options import RuleOptions
from psserver.rules import Adam, MomentumSGD, Rule, make_rule

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


def test_adam_with_a_constant_beta1_is_torchs_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SIZE, generator=generator)
    parameter = torch.nn.Parameter(x.clone())
    optimizer = torch.optim.Adam([parameter], lr=0.01, betas=(0.8, 0.99), eps=1e-7)
    rule = Adam(SIZE, RuleOptions(name="adam", beta2=0.99, epsilon=1e-7))
    for _ in range(60):
        gradient = torch.randn(SIZE, generator=generator)
        parameter.grad = gradient.clone()
        optimizer.step()
        x = step(rule, x, x, gradient, 0.01, 0.8)
    torch.testing.assert_close(x, parameter.detach(), rtol=2e-6, atol=2e-7)


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
    torch.testing.assert_close(x - new, 0.1 * rule.applied(gradient, lambda v: v), rtol=1e-4, atol=1e-6)


def test_adams_state_continues_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(2)
    first, second = (Adam(SIZE, RuleOptions(name="adam")) for _ in range(2))
    x = torch.zeros(SIZE)
    for _ in range(3):
        x = step(first, x, x, torch.randn(SIZE, generator=generator), 0.1, 0.9)
    second.load_state_dict(first.state_dict())
    gradient = torch.randn(SIZE, generator=generator)
    assert torch.equal(step(first, x, x, gradient, 0.1, 0.5), step(second, x, x, gradient, 0.1, 0.5))


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 3 values"):
        Adam(3, RuleOptions(name="adam")).load_state_dict(Adam(4, RuleOptions(name="adam")).state_dict())


def test_the_options_name_the_rule() -> None:
    assert isinstance(make_rule(RuleOptions(), 3), MomentumSGD)
    assert isinstance(make_rule(RuleOptions(name="adam"), 3), Adam)
