"""CIFAR-10 and CIFAR-100 with residual networks: the task the YellowFin paper reports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from psserver.errors import ConfigurationError
from worker.task import Task
from worker.zoo.cifar_data import CIFAR10, CIFAR100, Examples
from worker.zoo.resnet import BlockName, ResNet, choose_block
from worker.zoo.stream import Sharding


def resnet(
    dataset: Literal["cifar10", "cifar100"] = "cifar10",
    depth: int = 20,
    width: int = 16,
    block: BlockName = "auto",
    batch: int = 128,
    accumulate: int = 1,
    augment: bool = True,
    sharding: Sharding = "sample",
    examples: int | None = None,
    evaluate_examples: int = 10_000,
    autocast: Literal["bfloat16"] | None = None,
    channels_last: bool = False,
    compile: bool = False,  # noqa: A002
    data_dir: Path | None = None,
) -> Task:
    """Return CIFAR-10 or CIFAR-100 with the residual network of `depth` layers.

    depth, width, block: see `worker.zoo.resnet.ResNet`.
    batch:               examples a batch; `accumulate` batches make one gradient.
    augment:             random crops and mirror images.
    sharding:            "sample" or "shard", see `worker.zoo.stream.batch_indices`.
    examples:            train on the first so many images only.
    evaluate_examples:   evaluate the first so many of the 10,000 test images.
    autocast:            "bfloat16" computes forward and backward in mixed precision.
    data_dir:            see `worker.data.resolve_data_dir`.

    The data are opened, and downloaded if need be, with the first batch.
    """
    known = {"cifar10": CIFAR10, "cifar100": CIFAR100}
    if dataset not in known:
        raise ConfigurationError(f"dataset: expected cifar10 or cifar100, got {dataset!r}")
    if autocast not in (None, "bfloat16"):
        raise ConfigurationError(f"autocast: expected bfloat16 or nothing, got {autocast!r}")
    for name, number in (("width", width), ("batch", batch), ("accumulate", accumulate)):
        if number < 1:
            raise ConfigurationError(f"{name}: expected 1 or more, got {number}")
    _within("examples", examples, 50_000)
    _within("evaluate_examples", evaluate_examples, 10_000)
    choose_block(depth, block)
    data = known[dataset]
    drawn = Examples(data, data_dir)

    def loss(module: nn.Module, drawn_batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = drawn_batch
        return functional.cross_entropy(module(images), labels)

    return Task(
        model=lambda: ResNet(depth, data.classes, width, block),
        loss=loss,
        batches=lambda shard: drawn.batches(shard, examples, batch, augment, sharding),
        evaluate=lambda module: drawn.evaluate(module, evaluate_examples, channels_last),
        autocast=torch.bfloat16 if autocast else None,
        accumulate=accumulate,
        channels_last=channels_last,
        compile=compile,
    )


def _within(name: str, count: int | None, most: int) -> None:
    if count is not None and not 1 <= count <= most:
        raise ConfigurationError(f"{name}: expected between 1 and {most}, got {count}")
