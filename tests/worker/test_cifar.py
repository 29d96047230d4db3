"""The real CIFAR images: what they are, how they are augmented, and that a network learns from them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from psserver.errors import ConfigurationError, DataError
from worker.evaluate import Evaluator
from worker.gradient import Gradient
from worker.load import load_task
from worker.task import Shard, Task
from worker.zoo.cifar import resnet
from worker.zoo.cifar_data import CIFAR10, CIFAR100, DataSet, Examples, Images, augment
from worker.zoo.stream import generator

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("data", [CIFAR10, CIFAR100], ids=["CIFAR-10", "CIFAR-100"])


def open_train(data: DataSet, root: Path) -> Images:
    return Examples(data, root).train


@BOTH
def test_every_class_has_its_share(cifar_data: Path, data: DataSet) -> None:
    examples = Examples(data, cifar_data)
    for images, count in ((examples.train, 50_000), (examples.test, 10_000)):
        _, labels = images.take(np.arange(count))
        assert len(images) == count
        assert torch.bincount(labels).tolist() == [count // data.classes] * data.classes


@BOTH
def test_mean_and_deviation_are_those_of_the_training_images(cifar_data: Path, data: DataSet) -> None:
    pixels = open_train(data, cifar_data).take(np.arange(50_000))[0].numpy()
    for channel in range(3):
        counts = np.bincount(pixels[:, channel].ravel(), minlength=256) / (50_000 * 1024)
        values = np.arange(256) / 255
        mean = counts @ values
        assert mean == pytest.approx(data.mean[channel], abs=6e-5)
        assert (counts @ (values - mean) ** 2) ** 0.5 == pytest.approx(data.std[channel], abs=6e-5)


@BOTH
def test_an_image_is_the_bytes_of_its_record(cifar_data: Path, data: DataSet) -> None:
    images = open_train(data, cifar_data)
    record = data.label_bytes + 3072
    joined = b"".join((cifar_data / data.archive.folder / name).read_bytes() for name in data.train)
    wanted = [49_999, 0, 10_000, 9_999, 10_000, 31_415]
    pixels, labels = images.take(torch.tensor(wanted))
    for k, i in enumerate(wanted):
        raw = joined[i * record : (i + 1) * record]
        assert pixels[k].numpy().tobytes() == raw[data.label_bytes :]
        assert labels[k] == raw[data.label_bytes - 1]


def test_augmentation_agrees_with_a_loop_over_images(cifar_data: Path) -> None:
    images, _ = open_train(CIFAR10, cifar_data).take(np.arange(40))
    got = augment(images, generator("test"))
    draw = generator("test")
    top, left = torch.randint(0, 9, (2, 40, 1), generator=draw)
    mirrored = torch.randint(0, 2, (40, 1), generator=draw)
    for k in range(40):
        canvas = np.zeros((3, 40, 40), np.uint8)
        canvas[:, 4:36, 4:36] = images[k].numpy()
        crop = canvas[:, int(top[k]) : int(top[k]) + 32, int(left[k]) : int(left[k]) + 32]
        expected = crop[:, :, ::-1] if mirrored[k] else crop
        assert np.array_equal(got[k].numpy(), expected)


def test_every_offset_and_both_directions_are_drawn() -> None:
    ramp = torch.arange(1, 1025, dtype=torch.int32).view(1, 1, 32, 32).expand(4000, 3, 32, 32)
    crops = augment(ramp, generator("offsets"))
    seen = {(int(c[0, 16, 16]), int(c[0, 16, 16] - c[0, 16, 15])) for c in crops}
    assert len(seen) == 9 * 9 * 2


def test_normalised_images_have_mean_0_and_variance_1(cifar_data: Path) -> None:
    images, _ = open_train(CIFAR10, cifar_data).take(np.arange(10_000))
    normal = CIFAR10.normalise(images).double()
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3).double(), atol=0.03, rtol=0)
    torch.testing.assert_close(normal.var((0, 2, 3)), torch.ones(3).double(), atol=0.03, rtol=0)


def test_batches_are_a_pure_function_of_rank_and_position(cifar_data: Path) -> None:
    task = resnet(batch=8, data_dir=cifar_data)

    def draw(rank: int, start: int) -> torch.Tensor:
        return torch.stack([x for x, _ in islice(task.batches(Shard(rank, 16, 0, start)), 3)])

    assert torch.equal(draw(0, 2)[0], draw(0, 0)[2])
    assert not torch.equal(draw(0, 0), draw(1, 0))


def test_processes_share_the_images_as_one_mapped_file(cifar_data: Path) -> None:
    images = open_train(CIFAR10, cifar_data)
    assert all(isinstance(file, np.memmap) and not file.flags.writeable for file in images._files)


def test_a_server_needs_no_data(tmp_path: Path) -> None:
    assert resnet(data_dir=tmp_path / "nothing").model()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_data_folder_stops_the_first_batch(tmp_path: Path) -> None:
    folder = tmp_path / CIFAR10.archive.folder
    folder.mkdir()
    for name in CIFAR10.archive.files:
        (folder / name).write_bytes(b"not an image")
    source = Gradient(resnet(depth=8, data_dir=tmp_path), Shard(0, 1, 0), CPU)
    with pytest.raises(DataError, match=r"data_batch_1\.bin is damaged: expected md5 5dd7e06a"):
        source.compute(source.initial, torch.empty(source.layout.size), 1)


def train(task: Task, updates: int, rate: float) -> tuple[list[float], np.ndarray, np.ndarray]:
    source = Gradient(task, Shard(0, 1, seed=0), CPU)
    x, out, losses = source.initial, torch.empty(source.layout.size), []
    velocity = np.zeros_like(x)
    for step in range(1, updates + 1):
        losses.append(source.compute(x, out, step)[0])
        velocity = np.float32(0.9) * velocity - np.float32(rate) * out.numpy()
        x = x + velocity
    return losses, x, source.buffers()


def test_a_resnet_20_learns_64_images_by_heart(cifar_data: Path) -> None:
    task = resnet(examples=64, batch=64, augment=False, data_dir=cifar_data)
    losses, _, _ = train(task, 20, 0.05)
    assert losses[0] > 2
    assert losses[-1] < 0.1


def test_a_short_training_beats_chance_on_the_test_images(cifar_data: Path) -> None:
    task = resnet(depth=8, width=8, batch=64, evaluate_examples=1000, data_dir=cifar_data)
    _, x, buffers = train(task, 60, 0.05)
    assert Evaluator(task, CPU).evaluate(x, buffers)["accuracy"] > 0.2


def test_channels_last_and_full_layout_agree(cifar_data: Path) -> None:
    def first(**options: Any) -> torch.Tensor:
        source = Gradient(resnet(batch=8, data_dir=cifar_data, **options), Shard(0, 1, 0), CPU)
        out = torch.empty(source.layout.size)
        source.compute(source.initial, out, 1)
        return out

    plain = first()
    assert (first(channels_last=True) - plain).norm() < 1e-3 * plain.norm()
    assert (first(autocast="bfloat16") - plain).norm() < 0.3 * plain.norm()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dataset": "cifar11"}, "expected cifar10 or cifar100"),
        ({"depth": 21}, "nearest are"),
        ({"autocast": "float16"}, "expected bfloat16"),
        ({"examples": 60_000}, "expected between 1 and 50000, got 60000"),
        ({"evaluate_examples": 0}, "expected between 1 and 10000"),
        ({"width": 0}, "expected 1 or more"),
        ({"batch": 0}, "expected 1 or more"),
    ],
)
def test_arguments_without_meaning_are_refused_at_once(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_task("worker.zoo.cifar:resnet", arguments, None)
