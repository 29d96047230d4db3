"""Schedule-free SGD and AdamW against the three sequences of the paper, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from psserver.options import RuleOptions
from psserver.rules import make_rule

SIZE, BETA2, EPSILON, DECAY = 40, 0.9, 1e-6, 0.1
RATES = [0.1 * min(1.0, (t + 1) / 10) for t in range(60)]


@pytest.fixture(autouse=True)
def _double() -> object:
    torch.set_default_dtype(torch.float64)
    yield None
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("adam", [False, True])
def test_it_makes_the_papers_sequences_with_warm_up(adam: bool, beta: float) -> None:
    name = "schedule_free_adamw" if adam else "schedule_free_sgd"
    options = RuleOptions(name=name, weight_decay=DECAY, beta2=BETA2, epsilon=EPSILON)  # type: ignore[arg-type]
    rule, random = make_rule(options, SIZE), np.random.default_rng(0)
    start = random.normal(size=SIZE)
    x, z, v, squares = start.copy(), start.copy(), np.zeros(SIZE), 0.0
    version = torch.from_numpy(start.copy())
    for t, rate in enumerate(RATES):
        y = (1 - beta) * z + beta * x
        np.testing.assert_allclose(version.numpy(), y, rtol=1e-9, atol=1e-9)
        gradient = 0.5 * y + random.normal(size=SIZE)
        if adam:
            v = BETA2 * v + (1 - BETA2) * gradient**2
            direction = gradient / (np.sqrt(v / (1 - BETA2 ** (t + 1))) + EPSILON) + DECAY * y
        else:
            direction = gradient + DECAY * y
        before = z - y
        z = z - rate * direction
        squares += rate**2
        share = rate**2 / squares
        x = (1 - share) * x + share * z
        given = torch.from_numpy(gradient) + options.gradient_decay * version
        new, scratch = torch.empty(SIZE), torch.empty(SIZE)
        rule.begin(rate, beta)
        rule.apply(slice(0, SIZE), new, version, version, given, scratch)
        applied = rule.applied(given, version, torch.clone)
        torch.testing.assert_close(version + share * torch.from_numpy(before) - rate * applied, new)
        version = new
    assert float(np.abs(x - start).max()) > 0.3, "it moved"


def test_a_learning_rate_of_0_moves_nothing() -> None:
    rule, y = make_rule(RuleOptions(name="schedule_free_sgd"), 2), torch.tensor([1.0, -2.0])
    new = torch.empty(2)
    rule.begin(0.0, 0.9)
    rule.apply(slice(0, 2), new, y, y, torch.ones(2), torch.empty(2))
    assert torch.equal(new, y)
