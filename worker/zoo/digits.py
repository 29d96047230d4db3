"""Handwritten digits, 1,797 images of 8 × 8 that come with scikit-learn: a real task that needs no download."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from psserver.errors import ConfigurationError, DataError
from worker.task import Shard, Task
from worker.zoo.stream import Sharding, batch_indices, generator

_TRAIN = 1500
"""Examples trained on, of 1,797; the other 297 are evaluated."""


def cnn(
    width: int = 16, batch: int = 32, sharding: Sharding = "sample", norm: Literal["none", "group"] = "none"
) -> Task:
    """Return the digits with a small convolutional network (width 16: 21,546 parameters).

    width:    channels of the first convolution; the second has twice as many.
    batch:    examples a gradient.
    sharding: "sample" or "shard", see `worker.zoo.stream.batch_indices`.
    norm:     "group" normalises groups of four channels after each convolution; width must then be a multiple of 4.
    """
    _positive(width=width)
    if norm not in ("none", "group"):
        raise ConfigurationError(f'norm: expected "none" or "group", got {norm!r}')
    if norm == "group" and width % 4:
        raise ConfigurationError(f"width: expected a multiple of 4 with norm group, got {width}")

    def convolution(before: int, after: int) -> list[nn.Module]:
        if norm == "none":
            return [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.GroupNorm(after // 4, after), nn.ReLU()]

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            *convolution(1, width),
            *convolution(width, 2 * width),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, 10),
        )

    return _task(model, batch, sharding)


def mlp(hidden: int = 64, layers: int = 2, batch: int = 32, sharding: Sharding = "sample") -> Task:
    """Return the digits with a fully connected network of `layers` hidden layers of `hidden` units."""
    _positive(hidden=hidden, layers=layers)

    def model() -> nn.Module:
        steps: list[nn.Module] = [nn.Linear(64, hidden), nn.ReLU()]
        for _ in range(layers - 1):
            steps += [nn.Linear(hidden, hidden), nn.ReLU()]
        return nn.Sequential(*steps, nn.Linear(hidden, 10))

    return _task(model, batch, sharding)


def autoencoder(hidden: int = 48, code: int = 8, batch: int = 32, sharding: Sharding = "sample") -> Task:
    """Return the digits' images, to be restored from `code` numbers: tanh, one layer of `hidden` units on either side.

    Evaluates to the loss, the mean square of what a pixel is off.
    """
    _positive(hidden=hidden, code=code)

    def model() -> nn.Module:
        encoder = (nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, code), nn.Tanh())
        return nn.Sequential(*encoder, nn.Linear(code, hidden), nn.Tanh(), nn.Linear(hidden, 64))

    def loss(module: nn.Module, examples: tuple[Tensor, Tensor]) -> Tensor:
        images, _ = examples
        return functional.mse_loss(module(images), images)

    def evaluate(module: nn.Module) -> dict[str, float]:
        images = load()[0][_TRAIN:].to(next(module.parameters()).device)
        return {"loss": functional.mse_loss(module(images), images).item()}

    return Task(model=model, loss=loss, batches=_batches(batch, sharding), evaluate=evaluate)


def load() -> tuple[Tensor, Tensor]:
    """Return all images (float32 [1797, 64], 0 to 1) and labels (int64 [1797]), in one fixed shuffled order."""
    found = importlib.util.find_spec("sklearn")
    folders = list(found.submodule_search_locations or []) if found else []
    # The file alone: importing scikit-learn for it takes longer than importing torch.
    files = [Path(folder) / "datasets" / "data" / "digits.csv.gz" for folder in folders]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise DataError("the digits come with scikit-learn, which is not installed whole: pip install scikit-learn")
    with gzip.open(path, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float32)
    if table.shape != (1797, 65):
        raise DataError(f"{path}: expected 1797 rows of 65 numbers, got {list(table.shape)}")
    # In the file's own order, the last digits come from other writers than the first.
    order = torch.randperm(len(table), generator=generator("digits"))
    shuffled = torch.from_numpy(table)[order]
    return shuffled[:, :64] / 16, shuffled[:, 64].long()


def _task(model: Callable[[], nn.Module], batch: int, sharding: Sharding) -> Task:
    images, labels = load()

    def loss(module: nn.Module, examples: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = examples
        return functional.cross_entropy(module(inputs), targets)

    def evaluate(module: nn.Module) -> dict[str, float]:
        device = next(module.parameters()).device
        outputs, targets = module(images[_TRAIN:].to(device)), labels[_TRAIN:].to(device)
        right = (outputs.argmax(1) == targets).float().mean()
        return {"loss": functional.cross_entropy(outputs, targets).item(), "accuracy": right.item()}

    return Task(model=model, loss=loss, batches=_batches(batch, sharding), evaluate=evaluate)


def _batches(batch: int, sharding: Sharding) -> Callable[[Shard], Iterator[tuple[Tensor, Tensor]]]:
    images, labels = load()

    def batches(shard: Shard) -> Iterator[tuple[Tensor, Tensor]]:
        for _, chosen in batch_indices(shard, _TRAIN, batch, sharding):
            yield images[chosen], labels[chosen]

    return batches


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigurationError(f"{name}: expected 1 or more, got {size}")
