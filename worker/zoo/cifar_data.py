"""The CIFAR images: the published files mapped into memory, random crops and mirror images, batches, evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from worker.data import Archive, provide
from worker.task import Shard
from worker.zoo.stream import Sharding, batch_indices, generator

_PIXELS = 3 * 32 * 32
_MARGIN = 4
"""Black pixels on each side from which crops are drawn."""


@dataclass(frozen=True)
class DataSet:
    """One of the two CIFAR data sets, read from its published binary version.

    label_bytes: bytes before each image; the last is the label.
    mean, std:   of the training images' red, green and blue, in units of the full scale.
    """

    archive: Archive
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [images, 3, h, w] -> float32 of mean 0 and variance 1 a channel."""
        scale = torch.tensor([1 / (255 * s) for s in self.std]).view(3, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)]).view(3, 1, 1)
        return images.float().mul_(scale).add_(shift)


CIFAR10 = DataSet(
    archive=Archive(
        name="CIFAR-10",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        files={
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        },
    ),
    train=tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    test=("test_batch.bin",),
    label_bytes=1,
    classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)

CIFAR100 = DataSet(
    archive=Archive(
        name="CIFAR-100",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        files={
            "train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
            "test.bin": "4499cfba6c016c1be1438163640a0898",
        },
    ),
    train=("train.bin",),
    test=("test.bin",),
    label_bytes=2,
    classes=100,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


class Images:
    """Images and labels in the published files, mapped into memory: all processes of a host share one copy."""

    def __init__(self, folder: Path, names: tuple[str, ...], label_bytes: int) -> None:
        self._label_bytes = label_bytes
        record = label_bytes + _PIXELS
        self._files = [np.memmap(folder / name, np.uint8, mode="r").reshape(-1, record) for name in names]
        self._starts = np.cumsum([0, *(len(file) for file in self._files)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, indices: Tensor | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Copy the images at `indices` [n]: uint8 [n, 3, 32, 32] and labels int64 [n]."""
        places = np.asarray(indices)
        records = np.empty((len(places), self._label_bytes + _PIXELS), np.uint8)
        for first, last, file in zip(self._starts[:-1], self._starts[1:], self._files, strict=True):
            here = (first <= places) & (places < last)
            records[here] = file[places[here] - first]
        table = torch.from_numpy(records)
        labels = table[:, self._label_bytes - 1].long()
        return table[:, self._label_bytes :].reshape(-1, 3, 32, 32), labels


def augment(images: Tensor, draw: torch.Generator) -> Tensor:
    """Return a random crop of each image padded by 4 black pixels, half of them mirrored; uint8 [n, 3, 32, 32]."""
    n, _, height, width = images.shape
    padded = functional.pad(images, (_MARGIN,) * 4)
    top, left = torch.randint(0, 2 * _MARGIN + 1, (2, n, 1), generator=draw)
    mirrored = torch.randint(0, 2, (n, 1), generator=draw).bool()
    rows = torch.arange(height) + top
    columns = torch.where(mirrored, torch.arange(width - 1, -1, -1), torch.arange(width)) + left
    place = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    crops = padded.flatten(2).gather(2, place.view(n, 1, -1).expand(n, 3, -1))
    return crops.view(n, 3, height, width)


class Examples:
    """A data set's two halves, opened when first drawn from, so that a server needs no data."""

    def __init__(self, data: DataSet, data_dir: Path | None) -> None:
        self.data, self._data_dir = data, data_dir

    @cached_property
    def _folder(self) -> Path:
        return provide(self.data.archive, self._data_dir)

    @cached_property
    def train(self) -> Images:
        """The 50,000 training images."""
        return Images(self._folder, self.data.train, self.data.label_bytes)

    @cached_property
    def test(self) -> Images:
        """The 10,000 test images."""
        return Images(self._folder, self.data.test, self.data.label_bytes)

    def batches(
        self, shard: Shard, count: int | None, batch: int, augmented: bool, sharding: Sharding
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (float32 [batch, 3, 32, 32], int64 [batch]) from the first `count` training images (None: all)."""
        images = self.train
        for position, chosen in batch_indices(shard, count or len(images), batch, sharding):
            pixels, labels = images.take(chosen)
            if augmented:
                pixels = augment(pixels, generator("augment", shard.seed, shard.rank, position))
            yield self.data.normalise(pixels), labels

    def evaluate(self, module: nn.Module, count: int, channels_last: bool, batch: int = 500) -> dict[str, float]:
        """Return mean loss and accuracy over the first `count` test images."""
        device = next(module.parameters()).device
        memory = torch.channels_last if channels_last else torch.contiguous_format
        loss, right = 0.0, 0
        for first in range(0, count, batch):
            pixels, labels = self.test.take(np.arange(first, min(first + batch, count)))
            targets = labels.to(device)
            outputs = module(self.data.normalise(pixels).to(device, memory_format=memory))
            loss += functional.cross_entropy(outputs.float(), targets, reduction="sum").item()
            right += int((outputs.argmax(1) == targets).sum())
        return {"loss": loss / count, "accuracy": right / count}
