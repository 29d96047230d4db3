"""The small ready-made tasks: digits and the quadratic, and the index streams all tasks share."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from psserver.errors import ConfigurationError
from worker.evaluate import Evaluator
from worker.gradient import Gradient
from worker.task import Shard, Task
from worker.zoo import digits
from worker.zoo.quadratic import quadratic
from worker.zoo.stream import batch_indices

CPU = torch.device("cpu")


def descend(task: Task, updates: int, rate: float) -> np.ndarray:
    source = Gradient(task, Shard(0, 1, seed=0), CPU)
    x, out = source.initial, torch.empty(source.layout.size)
    for step in range(1, updates + 1):
        source.compute(x, out, step)
        x = x - np.float32(rate) * out.numpy()
    return x


def test_the_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    images, labels = digits.load()
    theirs = load_digits()

    def key(rows: np.ndarray) -> list[bytes]:
        return sorted(map(bytes, rows.astype(np.uint8)))

    ours = np.column_stack([(images * 16).numpy(), labels.numpy()])
    assert key(ours) == key(np.column_stack([theirs.data, theirs.target]))


def test_every_digit_is_trained_on_and_evaluated() -> None:
    _, labels = digits.load()
    assert torch.bincount(labels[:1500]).min() > 130
    assert torch.bincount(labels[1500:]).min() > 20


@pytest.mark.parametrize(
    ("task", "rate"),
    # The normalised one leaps about at 0.2, and where it stands after so many updates is a matter of rounding.
    [(digits.cnn(), 0.2), (digits.cnn(norm="group"), 0.05), (digits.mlp(), 0.2)],
    ids=["cnn", "normalised", "mlp"],
)
def test_the_digits_are_learnt(task: Task, rate: float) -> None:
    numbers = Evaluator(task, CPU).evaluate(descend(task, 150, rate))
    assert numbers["accuracy"] > 0.85


def test_the_digits_can_be_restored_from_eight_numbers() -> None:
    numbers = Evaluator(digits.autoencoder(), CPU).evaluate(descend(digits.autoencoder(), 400, 2.0))
    assert numbers["loss"] < 0.6 * digits.load()[0].var(0).mean(), "better than the mean image"


@pytest.mark.parametrize("wrong", [{"norm": "layer"}, {"width": 10, "norm": "group"}, {"width": 0}])
def test_a_network_for_the_digits_that_has_no_meaning_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        digits.cnn(**wrong)
    with pytest.raises(ConfigurationError, match="code"):
        digits.autoencoder(code=0)


def test_the_quadratics_gradient_is_hx_plus_noise_of_the_given_size() -> None:
    task = quadratic(size=2000, h_min=0.1, h_max=10, noise=0.5, start=2.0)
    h = np.geomspace(0.1, 10, 2000)
    source = Gradient(task, Shard(1, 4, seed=0), CPU)
    out = torch.empty(2000)
    _, examples = source.compute(source.initial, out, 1)
    xi = out.numpy() - 2 * h
    assert examples == 1
    assert abs(xi.mean()) < 4 * 0.5 / np.sqrt(2000)
    assert xi.std() == pytest.approx(0.5, rel=0.06)


def test_the_quadratic_without_noise_falls_as_theory_says() -> None:
    task = quadratic(size=3, h_min=0.5, h_max=0.5, noise=0)
    assert descend(task, 10, 0.2) == pytest.approx(np.full(3, 0.9**10), rel=1e-5)


def test_the_quadratics_evaluation_is_exact() -> None:
    numbers = Evaluator(quadratic(size=3, h_min=1, h_max=4), CPU).evaluate(np.float32([1, 2, 2]))
    assert numbers == pytest.approx({"loss": 0.5 * (1 + 2 * 4 + 4 * 4), "distance": 3.0})


@pytest.mark.parametrize("wrong", [{"size": 0}, {"h_min": 2.0}, {"h_min": 0.0}, {"noise": -1.0}])
def test_the_quadratic_refuses_what_has_no_meaning(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        quadratic(**wrong)


@pytest.mark.parametrize("sharding", ["sample", "shard"])
def test_an_index_stream_is_a_pure_function_of_its_position(sharding: str) -> None:
    def stream(start: int) -> list[list[int]]:
        return [i.tolist() for _, i in islice(batch_indices(Shard(1, 3, 0, start), 100, 8, sharding), 40 - start)]

    whole = stream(0)
    for start in (3, 4, 12, 25):
        assert stream(start) == whole[start:]


def test_sampling_runs_through_all_examples_in_an_own_order_every_epoch() -> None:
    def epoch(rank: int, number: int) -> list[int]:
        return torch.cat([i for _, i in islice(batch_indices(Shard(rank, 2, 0, 4 * number), 20, 5), 4)]).tolist()

    assert sorted(epoch(0, 0)) == list(range(20))
    assert len({tuple(epoch(rank, number)) for rank in (0, 1) for number in (0, 1)}) == 4


def test_shards_of_an_epoch_share_no_example() -> None:
    drawn = [
        torch.cat([i for _, i in islice(batch_indices(Shard(rank, 3, 0, 3), 90, 10, "shard"), 3)]) for rank in range(3)
    ]
    assert sorted(torch.cat(drawn).tolist()) == list(range(90))


def test_a_batch_larger_than_a_shard_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="between 1 and the 25 examples of 100 shared by 4 workers, got 26"):
        batch_indices(Shard(0, 4, 0), 100, 26, "shard")
    with pytest.raises(ConfigurationError, match="expected 'sample' or 'shard'"):
        batch_indices(Shard(0, 4, 0), 100, 10, "shards")  # type: ignore[arg-type]
