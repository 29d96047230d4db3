"""Layers whose scale does not matter: what networks' first gradients tell of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.distance import LearntDistance
from tuner.invariance import Invariance, normalisations
from tuner.layers import Layers


def told(
    module: nn.Module, outputs: int, *, weight_decay: float = 0.0, blocks: int = 1, scale: float = 1.0
) -> list[bool]:
    """What one gradient tells of each parameter tensor as a layer by itself."""
    draw = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(32, 3, 8, 8, generator=draw), torch.randint(outputs, (32,), generator=draw)
    (scale * functional.cross_entropy(module(inputs), labels)).backward()
    parameters = list(module.parameters())
    x = torch.cat([p.detach().flatten() for p in parameters])
    g = torch.cat([gradient(p).flatten() for p in parameters]) + weight_decay * x
    invariance = Invariance(Layers(x.numel(), [p.numel() for p in parameters]), weight_decay)
    for k in range(blocks):
        part = slice(k * x.numel() // blocks, (k + 1) * x.numel() // blocks)
        invariance.look(part, g[part], x[part])
    return invariance.found()


def gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def network(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), norm, nn.Tanh(), nn.Conv2d(8, 8, 3, bias=False), nn.Tanh(), nn.Flatten(),
        nn.Linear(128, 10),
    )  # fmt: skip


@pytest.mark.parametrize("groups", [0, 2], ids=["batch", "group"])
@pytest.mark.parametrize(("scale", "weight_decay"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 0.0), (1.0, 5e-4), (1.0, 0.1)])
@pytest.mark.parametrize("blocks", [1, 7])
def test_weights_before_a_normalisation_are_found_and_no_others(
    groups: int, weight_decay: float, blocks: int, scale: float
) -> None:
    torch.manual_seed(2)  # chance finds one other layer in 250: it must be the same draw in any order of the tests
    norm = nn.GroupNorm(groups, 8) if groups else nn.BatchNorm2d(8)
    nn.init.uniform_(norm.get_parameter("bias"))
    found = told(network(norm), 10, weight_decay=weight_decay, blocks=blocks, scale=scale)
    assert found == [True, False, False, False, False, False]


def test_without_a_normalisation_there_are_none() -> None:
    assert not any(told(network(nn.Identity()), 10))


def test_a_layer_at_zero_or_without_a_gradient_is_none() -> None:
    invariance = Invariance(Layers(4, (2, 2)), 0.0)
    invariance.look(slice(0, 4), torch.tensor([1.0, 2.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 2.0]))
    assert invariance.found() == [False, False]


def test_weight_decay_that_is_not_told_of_hides_it() -> None:
    module = network(nn.BatchNorm2d(8))
    assert told(module, 10, weight_decay=0.01)[0]
    invariance = Invariance(Layers(2, (2,)), 0.0)
    invariance.look(slice(0, 2), torch.tensor([0.1, 1.0]), torch.tensor([1.0, 0.0]))
    assert invariance.found() == [False]


@pytest.mark.parametrize(
    ("invariant", "second", "expected"),
    [
        ((True, False), [1.0, 1.0, 0.0], True),
        ((True, False), [0.0, 0.0, 0.0], True),  # a scale that starts at 0, as in the last of a residual block
        ((True, False), [1.0, 0.5, 0.0], False),
        ((False, False), [1.0, 1.0, 0.0], False),  # LayerNorm, which no invariant layer need precede
        ((False, True), [1.0, 1.0, 0.0], False),
    ],
)
def test_a_scale_and_a_shift_are_ones_and_zeros_after_an_invariant_layer(
    invariant: tuple[bool, bool], second: list[float], expected: bool
) -> None:
    start = torch.tensor([1.0, 0.0, *second])
    assert normalisations(invariant, Layers(5, (2, 3)), start) == [False, expected]


def test_the_target_says_which_layers_those_are_and_still_does_after_a_restart() -> None:
    draws = torch.Generator().manual_seed(1)
    x, g = torch.randn(400, generator=draws), torch.randn(400, generator=draws)
    g[:200] -= torch.dot(g[:200], x[:200]) / torch.dot(x[:200], x[:200]) * x[:200]
    targets = [LearntDistance(400, momentum=0.8, updates=100, layers=(200, 200)) for _ in range(2)]
    seen = []
    for target in targets:
        if seen:
            target.load_state_dict(targets[0].state_dict())
        target.look(slice(0, 400), g, x)
        decision = target.decide()
        target.absorb(slice(0, 400), g)
        assert decision.strides is not None
        seen.append(decision.strides.invariant)
    assert seen == [frozenset({0})] * 2
