"""One flat gradient: equal to plain autograd, and a pure function of parameters, rank and step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from psserver.errors import ConfigurationError, LayoutError, TaskError
from worker.gradient import Gradient, pick_device
from worker.load import user_traceback
from worker.task import Shard, Task
from worker.zoo import digits

CPU = torch.device("cpu")


def gradient(task: Task, rank: int = 0, start: int = 0) -> Gradient:
    return Gradient(task, Shard(rank, 4, seed=3, start=start), CPU)


def at(source: Gradient, step: int) -> Tensor:
    out = torch.full((source.layout.size,), float("nan"))
    source.compute(source.initial, out, step)
    return out


def stochastic() -> Task:
    """Digits with BatchNorm and dropout, so that randomness and buffers matter."""

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10))

    return replace(digits.mlp(), model=model)


def test_it_equals_a_plain_autograd_loop_bit_for_bit() -> None:
    task = digits.cnn(width=4)
    source = gradient(task)
    torch.manual_seed(3)
    model = task.model()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    stream = task.batches(Shard(0, 4, seed=3))
    out, x = torch.empty(source.layout.size), source.initial
    for step in range(1, 6):
        loss, examples = source.compute(x, out, step)
        sgd.zero_grad()
        expected = task.loss(model, next(stream))
        expected.backward()
        assert (loss, examples) == (expected.item(), 32)
        assert torch.equal(out, torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
        sgd.step()
        x = source.layout.flatten(model).numpy()


def test_the_same_step_twice_gives_the_same_bits_and_others_do_not() -> None:
    source = gradient(stochastic())
    first = at(source, 5)
    assert torch.equal(at(source, 5), first)
    assert torch.equal(at(gradient(stochastic()), 5), first)
    assert not torch.equal(at(source, 6), first)
    assert not torch.equal(at(gradient(stochastic(), rank=1), 5), first)


def test_a_resumed_worker_continues_where_the_first_left() -> None:
    whole, resumed = gradient(stochastic()), gradient(stochastic(), start=2)
    ahead = [at(whole, step) for step in (1, 2, 3, 4)]
    assert torch.equal(at(resumed, 3), ahead[2])
    assert torch.equal(at(resumed, 4), ahead[3])


def test_steps_in_sequence_open_the_stream_once() -> None:
    opened: list[int] = []

    def batches(shard: Shard) -> Iterator[Any]:
        opened.append(shard.start)
        return plain.batches(shard)

    plain = digits.mlp()
    source = gradient(replace(plain, batches=batches, accumulate=3), start=2)
    for step in (3, 4, 5, 5, 9):
        at(source, step)
    assert opened == [6, 12, 24]


def test_accumulated_batches_are_averaged() -> None:
    task = digits.mlp(batch=20)
    one, three = gradient(task), gradient(replace(task, accumulate=3))
    expected = torch.stack([at(one, step) for step in (4, 5, 6)]).mean(0)
    out = torch.empty(three.layout.size)
    _, examples = three.compute(three.initial, out, 2)
    torch.testing.assert_close(out, expected)
    assert examples == 60


def test_the_caller_may_change_the_buffer_between_steps() -> None:
    source = gradient(digits.mlp())
    first, second = torch.empty(source.layout.size), torch.empty(source.layout.size)
    source.compute(source.initial, first, 1)
    kept = first.clone()
    source.compute(source.initial, second, 2)
    assert torch.equal(first, kept)
    assert torch.equal(second, at(gradient(digits.mlp()), 2))


def test_read_only_parameters_are_accepted() -> None:
    source = gradient(digits.mlp())
    x = source.initial
    x.flags.writeable = False
    source.compute(x, torch.empty(source.layout.size), 1)


def test_a_parameter_without_gradient_gets_zero() -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 10), nn.ParameterList([torch.ones(3)]))

    task = replace(digits.mlp(), model=model, loss=lambda m, b: functional.cross_entropy(m[0](b[0]), b[1]))
    out = at(gradient(task), 1)
    assert torch.equal(out[-3:], torch.zeros(3))
    assert out[:-3].any()


def test_a_loss_that_clears_gradients_itself_still_delivers_them() -> None:
    plain = digits.mlp()

    def loss(module: nn.Module, batch: Any) -> Tensor:
        module.zero_grad(set_to_none=True)
        return plain.loss(module, batch)

    assert torch.equal(at(gradient(replace(plain, loss=loss)), 1), at(gradient(plain), 1))


def test_batchnorm_statistics_are_handed_out_as_a_copy() -> None:
    source = gradient(stochastic())
    before = source.buffers()
    assert np.array_equal(before, np.repeat(np.float32([0, 1]), 32))
    at(source, 1)
    assert not np.array_equal(source.buffers(), before)


def test_a_worker_that_joins_late_continues_from_the_buffers_it_is_given() -> None:
    source = gradient(stochastic())
    given = np.linspace(0.5, 2, 64, dtype=np.float32)
    given.flags.writeable = False
    source.load_buffers(given)
    assert np.array_equal(source.buffers(), given)
    assert torch.equal(at(source, 3), at(gradient(stochastic()), 3))
    with pytest.raises(LayoutError, match="buffers: expected a vector of 64 elements"):
        source.load_buffers(given[1:])


def test_bfloat16_autocast_changes_the_gradient_only_a_little() -> None:
    task = digits.mlp()
    full, half = at(gradient(task), 1), at(gradient(replace(task, autocast=torch.bfloat16)), 1)
    assert half.dtype == torch.float32
    assert 0 < (half - full).norm() < 0.02 * full.norm()


def test_channels_last_batches_give_the_same_gradient() -> None:
    task = replace(
        digits.cnn(width=4),
        batches=lambda shard: ((x.view(-1, 1, 8, 8).expand(-1, 3, 8, 8), y) for x, y in digits.cnn().batches(shard)),
        model=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10)),
    )
    seen: list[bool] = []

    def loss(module: nn.Module, batch: Any) -> Tensor:
        seen.append(batch[0].is_contiguous(memory_format=torch.channels_last))
        return task.loss(module, batch)

    last = replace(task, channels_last=True, loss=loss)
    torch.testing.assert_close(at(gradient(last), 1), at(gradient(task), 1))
    assert seen == [True]


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


@pytest.mark.parametrize("model", [lambda: nn.Sequential(nn.Linear(64, 10)), Own], ids=["torchs", "own"])
def test_a_compiled_model_is_really_captured_and_gives_the_same_gradient(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        captured.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    task = replace(digits.mlp(), model=model)
    compiled = gradient(replace(task, compile=True))
    for step in (1, 2):
        torch.testing.assert_close(at(compiled, step), at(gradient(task), step))
    assert len(captured) == 1
    assert compiled.layout.digest == gradient(task).layout.digest


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda m, b: functional.cross_entropy(m(b[0]), b[1], reduction="none"), r"shape \[32\], expected one number"),
        (lambda m, b: 0.5, "returned a float"),
        (lambda m, b: torch.tensor(1.0), "does not depend on the model's parameters"),
        (lambda m, b: m(b[1]), "the task's loss, at step 1 raised RuntimeError"),
    ],
)
def test_a_wrong_loss_is_the_tasks_error(loss: Any, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        at(gradient(replace(digits.mlp(), loss=loss)), 1)


def test_the_users_line_leads_the_traceback_of_a_failing_loss() -> None:
    def loss(module: nn.Module, batch: Any) -> Tensor:
        return module(batch)  # a tuple, not the images

    with pytest.raises(TaskError) as caught:
        at(gradient(replace(digits.mlp(), loss=loss)), 1)
    first = user_traceback(caught.value).splitlines()[1]
    assert "test_gradient.py" in first
    assert "in loss" in first


def test_batches_that_end_are_the_tasks_error() -> None:
    finite = replace(digits.mlp(), batches=lambda shard: iter([]))
    with pytest.raises(TaskError, match="ended at step 1; the stream must be endless"):
        at(gradient(finite), 1)


def test_a_step_that_failed_can_be_computed_again() -> None:
    plain, failures = digits.mlp(), [True]

    def loss(module: nn.Module, batch: Any) -> Tensor:
        if failures:
            failures.pop()
            raise OSError("a passing fault")
        return plain.loss(module, batch)

    source = gradient(replace(plain, loss=loss))
    with pytest.raises(TaskError, match="a passing fault"):
        at(source, 1)
    assert torch.equal(at(source, 1), at(gradient(plain), 1))


def test_vectors_that_do_not_fit_are_refused() -> None:
    source = gradient(digits.mlp())
    with pytest.raises(LayoutError, match="parameters: expected float32"):
        source.compute(source.initial.astype(np.float64), torch.empty(source.layout.size), 1)
    with pytest.raises(LayoutError, match="out: expected float32"):
        source.compute(source.initial, torch.empty(3), 1)


def test_a_model_function_must_build_a_module() -> None:
    with pytest.raises(TaskError, match=r"returned a int, expected a torch\.nn\.Module"):
        gradient(replace(digits.mlp(), model=lambda: 3))


def test_float16_is_refused_for_want_of_loss_scaling() -> None:
    with pytest.raises(ConfigurationError, match="bfloat16"):
        gradient(replace(digits.mlp(), autocast=torch.float16))


def test_devices_are_shared_in_turn_and_the_task_decides_where_auto_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    task = digits.mlp()
    assert [str(pick_device("auto", task, rank)) for rank in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert pick_device("auto", replace(task, device="cpu"), 1) == CPU
    assert str(pick_device("cuda:1", replace(task, device="cpu"))) == "cuda:1"


@pytest.mark.parametrize(("name", "said"), [("gpu", "got 'gpu'"), ("cuda", "finds no GPU"), ("meta", "not supported")])
def test_a_device_that_is_not_there_is_said(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match=said):
        pick_device(name, digits.mlp())
