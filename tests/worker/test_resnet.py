"""Residual networks: the sizes the papers give, shapes, and what is said of depths that do not exist."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from psserver.errors import ConfigurationError
from worker.zoo.resnet import BlockName, ResNet, choose_block


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_basic_networks_have_the_published_number_of_parameters(depth: int, parameters: int) -> None:
    assert sum(p.numel() for p in ResNet(depth, 10).parameters()) == parameters


@pytest.mark.parametrize(("depth", "classes", "millions"), [(164, 10, 1.70), (164, 100, 1.73), (47, 10, 0.50)])
def test_bottleneck_networks_have_the_published_size(depth: int, classes: int, millions: float) -> None:
    network = ResNet(depth, classes, block="bottleneck")
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("depth", "block"), [(20, "basic"), (32, "auto"), (20, "bottleneck"), (164, "auto"), (47, "auto")]
)
def test_the_depth_is_the_number_of_weighted_layers(depth: int, block: BlockName) -> None:
    network = ResNet(depth, 10, block=block)
    layers = [m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
    assert len(layers) == depth


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_images_become_one_row_of_logits_each(block: BlockName) -> None:
    assert ResNet(20, 100, width=4, block=block)(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


def test_option_a_shortcuts_take_every_second_pixel_and_pad_the_channels_with_zeros() -> None:
    block = ResNet(8, 10).blocks[1]
    nn.init.zeros_(block.bn2.weight)  # leaves the shortcut alone
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert out.shape == (2, 32, 4, 4)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_convolutions_start_with_hes_variance() -> None:
    torch.manual_seed(0)
    weight = ResNet(8, 10, width=64).blocks[1].conv2.weight  # 128 channels of 3 x 3
    assert weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("depth", "block", "kind"),
    [
        (20, "auto", "basic"),
        (110, "auto", "basic"),
        (164, "auto", "bottleneck"),
        (47, "auto", "bottleneck"),
        (164, "basic", "basic"),
        (110, "bottleneck", "bottleneck"),
    ],
)
def test_auto_takes_the_published_kind_where_both_fit(depth: int, block: BlockName, kind: str) -> None:
    assert choose_block(depth, block) == kind


@pytest.mark.parametrize(
    ("depth", "block", "said"),
    [
        (21, "auto", r"nearest are 20, 26 \(6n\+2, basic blocks\) or 20, 29 \(9n\+2, bottleneck blocks\)"),
        (47, "basic", r"nearest are 44, 50 \(6n\+2, basic blocks\)"),
        (2, "auto", r"nearest are 8 \(6n\+2, basic blocks\) or 11"),
        (-7, "basic", "nearest are 8"),
        (20, "wide", "expected auto, basic or bottleneck, got 'wide'"),
    ],
)
def test_depths_that_do_not_exist_are_answered_with_those_that_do(depth: int, block: BlockName, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ResNet(depth, 10, block=block)
