"""Prodigy against its algorithm written out, and on a problem whose distance is known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from psserver.options import RuleOptions
from psserver.prodigy import Prodigy

SIZE, BETA1, BETA2, EPSILON, DECAY, D0 = 30, 0.9, 0.99, 1e-8, 0.01, 1e-4
OPTIONS = RuleOptions(name="prodigy", weight_decay=DECAY, beta2=BETA2, epsilon=EPSILON, initial_distance=D0)
FACTORS = [1.0, 1.0, 0.5] * 30


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def step(rule: Prodigy, x: torch.Tensor, gradient: torch.Tensor, factor: float, blocks: int = 3) -> torch.Tensor:
    new, scratch = torch.empty_like(x), torch.empty_like(x)
    rule.begin(factor, BETA1)
    for block in (slice(k, k + x.numel() // blocks) for k in range(0, x.numel(), x.numel() // blocks)):
        rule.apply(block, new[block], x[block], x[block], gradient[block], scratch[block])
    return new


@pytest.mark.usefixtures("double")
def test_it_is_the_algorithm_in_any_blocks() -> None:
    rule, random = Prodigy(SIZE, OPTIONS), np.random.default_rng(0)
    x0 = x = random.normal(size=SIZE)
    m, v, s, r, d, beta3 = np.zeros(SIZE), np.zeros(SIZE), np.zeros(SIZE), 0.0, D0, BETA2**0.5
    made = torch.from_numpy(x.copy())
    for factor in FACTORS:
        gradient = x + 0.1 * random.normal(size=SIZE)
        made = step(rule, made, torch.from_numpy(gradient), factor)
        m = BETA1 * m + (1 - BETA1) * d * gradient
        v = BETA2 * v + (1 - BETA2) * d**2 * gradient**2
        r = beta3 * r + (1 - beta3) * factor * d**2 * gradient @ (x0 - x)
        s = beta3 * s + (1 - beta3) * factor * d**2 * gradient
        x = x - factor * d * (m / (np.sqrt(v) + d * EPSILON) + DECAY * x)
        d = max(d, r / np.abs(s).sum())
        assert rule.distance == pytest.approx(d, rel=1e-9)
        np.testing.assert_allclose(made.numpy(), x, rtol=1e-9, atol=1e-12)
    assert d > 100 * D0


def test_the_estimate_grows_to_the_distance_and_no_further() -> None:
    """f = Σ |x_i| from x = 1: the solution lies 1 away in every coordinate."""
    rule = Prodigy(SIZE, RuleOptions(name="prodigy"))
    x = torch.ones(SIZE)
    for _ in range(2000):
        x = step(rule, x, torch.sign(x), 1.0)
    assert 0.1 < rule.distance <= 1.0
    assert float(x.abs().max()) < 0.2


def test_a_zero_gradient_teaches_nothing() -> None:
    rule, x = Prodigy(3, RuleOptions(name="prodigy")), torch.ones(3)
    assert torch.equal(step(rule, x, torch.zeros(3), 1.0), x)
    assert rule.distance == 1e-6


def test_the_first_distance_must_be_above_0() -> None:
    with pytest.raises(ValueError, match=r"initial_distance: expected a number above 0, got 0"):
        RuleOptions(name="prodigy", initial_distance=0)
