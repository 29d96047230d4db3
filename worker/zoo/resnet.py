"""Residual networks for 32 × 32 images: 6n+2 layers of basic blocks, 9n+2 layers of bottlenecks."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from psserver.errors import ConfigurationError

BlockName = Literal["auto", "basic", "bottleneck"]

_LAYERS = {"basic": 6, "bottleneck": 9}
"""Layers that one more block in each of the three stages adds."""


class Basic(nn.Module):
    """Two 3 × 3 convolutions; the shortcut has no parameters (option A: every second pixel, zeros for new channels)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self._stride, self._extra = stride, width - inputs

    def forward(self, x: Tensor) -> Tensor:
        """[images, inputs, h, w] -> [images, width, h/stride, w/stride]."""
        # In place wherever autograd keeps no copy: these networks spend their memory on activations.
        y = functional.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self._stride > 1:
            x = x[:, :, :: self._stride, :: self._stride]
        if self._extra:
            before = self._extra // 2
            x = functional.pad(x, (0, 0, 0, 0, before, self._extra - before))
        y += x
        return functional.relu_(y)


class Bottleneck(nn.Module):
    """Convolutions 1 × 1, 3 × 3 (with the stride) and 1 × 1 to 4 · width channels; a projection where shapes differ."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[images, inputs, h, w] -> [images, 4 * width, h/stride, w/stride]."""
        y = functional.relu_(self.bn1(self.conv1(x)))
        y = functional.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.shortcut(x)
        return functional.relu_(y)


class ResNet(nn.Module):
    """A residual network, version 1: stem, three stages of `width`, 2 and 4 × `width`, mean over the image, linear.

    depth: 6n+2 ("basic") or 9n+2 ("bottleneck"). Where both fit, "auto" takes basic blocks up to 110
           layers and bottlenecks beyond, as published.

    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016, section 4.2; He's initialisation.
    """

    def __init__(self, depth: int, classes: int, width: int = 16, block: BlockName = "auto") -> None:
        super().__init__()
        kind = choose_block(depth, block)
        if width < 1:
            raise ConfigurationError(f"width: expected 1 or more channels, got {width}")
        blocks, outputs = (depth - 2) // _LAYERS[kind], width
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        stages = []
        for stage in range(3):
            channels = width << stage
            for k in range(blocks):
                stride = 2 if stage and not k else 1
                inputs = outputs
                outputs = channels if kind == "basic" else 4 * channels
                stages.append((Basic if kind == "basic" else Bottleneck)(inputs, channels, stride))
        self.blocks = nn.Sequential(*stages)
        self.linear = nn.Linear(outputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [images, 3, h, w] -> logits [images, classes]."""
        x = functional.relu_(self.bn(self.conv(images)))
        logits: Tensor = self.linear(torch.mean(self.blocks(x), dim=(2, 3)))
        return logits


def choose_block(depth: int, block: BlockName = "auto") -> Literal["basic", "bottleneck"]:
    """Return the kind of block for `depth`; raises `ConfigurationError` naming the nearest depths that exist."""
    if block not in ("auto", "basic", "bottleneck"):
        raise ConfigurationError(f"block: expected auto, basic or bottleneck, got {block!r}")
    fits = {name: depth > 2 and (depth - 2) % step == 0 for name, step in _LAYERS.items()}
    if block == "basic" or (block == "auto" and fits["basic"] and not (fits["bottleneck"] and depth > 110)):
        kind: Literal["basic", "bottleneck"] = "basic"
    else:
        kind = "bottleneck"
    if fits[kind]:
        return kind
    kinds = list(_LAYERS) if block == "auto" else [kind]
    near = " or ".join(f"{_near(depth, _LAYERS[k])} ({_LAYERS[k]}n+2, {k} blocks)" for k in kinds)
    raise ConfigurationError(f"depth: there is no such ResNet of {depth} layers; the nearest are {near}")


def _near(depth: int, step: int) -> str:
    below = max(1, (depth - 2) // step) * step + 2
    return str(below) if depth < below else f"{below}, {below + step}"
