"""Curvature by back-propagation: equal to the Hessian where that can be formed, and without a trace in the gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from psserver.errors import TaskError
from worker.curvature import due, hessian_product, largest, mean_diagonal, measure
from worker.gradient import Gradient
from worker.task import Shard, Task
from worker.zoo import digits
from worker.zoo.quadratic import quadratic

CPU = torch.device("cpu")


def tiny() -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x, y = torch.randn(8, 3), torch.randint(2, (8,))
    return model, lambda: functional.cross_entropy(model(x), y)


def whole_hessian(model: nn.Module) -> Tensor:
    """By `torch.autograd.functional.hessian`, from one flat vector."""
    names, sizes = zip(*((name, p.numel()) for name, p in model.named_parameters()), strict=True)
    torch.manual_seed(2)
    nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x, y = torch.randn(8, 3), torch.randint(2, (8,))

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, list(sizes))
        given = {n: part.view_as(model.get_parameter(n)) for n, part in zip(names, parts, strict=True)}
        return functional.cross_entropy(torch.func.functional_call(model, given, (x,)), y)

    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    hessian: Tensor = torch.autograd.functional.hessian(loss, flat)
    return hessian


def measured(source: Gradient, step: int = 1) -> tuple[float, float]:
    source.compute(source.initial, torch.empty(source.layout.size), step)
    found = source.curvature()
    assert found is not None
    return found


def test_products_are_those_of_the_whole_hessian() -> None:
    model, loss = tiny()
    hessian = whole_hessian(model)
    product = hessian_product(loss(), list(model.parameters()))
    for column in (0, 7, 25):
        vector = torch.zeros(26)
        vector[column] = 1.0
        assert torch.allclose(product(vector), hessian[:, column], atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_power_iteration_and_random_signs_find_what_the_whole_hessian_has() -> None:
    model, loss = tiny()
    hessian = whole_hessian(model)
    product = hessian_product(loss(), list(model.parameters()))
    size, direction = largest(product, torch.ones(26), 60)
    assert size == pytest.approx(float(torch.linalg.eigvalsh(hessian).abs().max()), rel=1e-3)
    assert largest(product, direction, 1)[0] == pytest.approx(size, rel=1e-3)
    signs = torch.ones(1, 1)
    for _ in range(
        5
    ):  # a Hadamard matrix, whose columns are orthogonal: over its rows the mean of z zᵀ is the identity
        signs = torch.cat((torch.cat((signs, signs), 1), torch.cat((signs, -signs), 1)))
    mean = sum(mean_diagonal(product, row) for row in signs[:, :26]) / 32
    assert mean == pytest.approx(float(hessian.diagonal().mean()), rel=1e-4)


def test_a_quadratic_is_measured_as_it_is_whatever_its_noise() -> None:
    source = Gradient(quadratic(size=50, h_min=0.01, h_max=4.0, noise=1.0), Shard(0, 1, 0), CPU)
    h = torch.logspace(0, 1, 50, base=400.0, dtype=torch.float64) * 0.01
    first, last = measured(source), (0.0, 0.0)
    for step in range(2, 40):
        last = measured(source, step)
    assert 2.0 < first[0] <= 4.0 + 1e-4
    assert last[0] == pytest.approx(4.0, rel=1e-3)
    assert last[1] == pytest.approx(float(h.mean()), rel=1e-4)  # z² is 1: exact for a diagonal Hessian


def test_a_negative_eigenvalue_counts_by_its_magnitude() -> None:
    x = nn.Parameter(torch.ones(3))
    product = hessian_product(0.5 * (torch.tensor([1.0, -5.0, 2.0]) * x.square()).sum(), [x])
    assert largest(product, torch.ones(3), 40)[0] == pytest.approx(5.0)


def test_a_loss_without_curvature_has_none() -> None:
    x = nn.Parameter(torch.ones(3))
    assert measure(hessian_product(x.sum(), [x]), None, torch.zeros(3), 0)[0] == (0.0, 0.0)


def test_what_is_not_finite_is_not_reported() -> None:
    x = nn.Parameter(torch.ones(3))
    assert measure(hessian_product((x.square() * float("inf")).sum(), [x]), None, torch.zeros(3), 0)[0] is None


def test_workers_measure_in_turn() -> None:
    turns = [[step for step in range(1, 12) if due(step, worker, 5)] for worker in range(3)]
    assert turns == [[1, 6, 11], [5, 10], [4, 9]]
    assert not due(1, 0, 0)


def stochastic() -> Task:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10))

    return replace(digits.mlp(), model=model)


def test_gradients_and_buffers_are_the_same_bits_with_and_without_measuring() -> None:
    plain, measuring = (Gradient(stochastic(), Shard(0, 2, 1), CPU) for _ in range(2))
    outs = [torch.empty(plain.layout.size) for _ in range(2)]
    for step in range(1, 4):
        losses = [
            source.compute(plain.initial, out, step)[0] for source, out in zip((plain, measuring), outs, strict=True)
        ]
        before = outs[1].clone()
        assert measuring.curvature() is not None
        assert losses[0] == losses[1]
        assert torch.equal(outs[0], outs[1])
        assert torch.equal(outs[1], before)
    assert (plain.buffers() == measuring.buffers()).all()


def test_the_same_seed_measures_the_same_and_virtual_workers_as_if_alone() -> None:
    first = Gradient(stochastic(), Shard(0, 2, 1), CPU)
    sharing = [first, first.another(Shard(1, 2, 1))]
    alone = [Gradient(stochastic(), Shard(rank, 2, 1), CPU) for rank in range(2)]
    for rank, step in [(0, 1), (1, 1), (1, 2), (0, 2)]:
        assert measured(sharing[rank], step) == measured(alone[rank], step)
    first.compute(first.initial, torch.empty(first.layout.size), 3)
    with pytest.raises(RuntimeError, match="expected compute"):
        sharing[1].curvature()


def test_the_ready_made_tasks_can_be_measured(small_task: Task) -> None:
    h_max, h_mean = measured(Gradient(small_task, Shard(0, 1, 0), CPU))
    assert 0 < abs(h_mean) < h_max


def test_a_compiled_model_is_measured_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, compiled = (Gradient(replace(digits.mlp(), compile=c), Shard(0, 1, 0), CPU) for c in (False, True))
    assert measured(compiled) == pytest.approx(measured(plain), rel=1e-4)


class Once(torch.autograd.Function):
    """x², of which only a first derivative is known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * slope * ctx.saved_tensors[0]


def test_a_loss_that_can_be_differentiated_only_once_is_refused_with_what_to_do() -> None:
    task = replace(
        digits.mlp(),
        loss=lambda module, batch: Once.apply(module(batch[0])).square().mean(),  # type: ignore[no-untyped-call]
    )
    source = Gradient(task, Shard(0, 1, 0), CPU)
    source.compute(source.initial, torch.empty(source.layout.size), 1)
    with pytest.raises(TaskError, match=r"expected a loss that torch can differentiate twice.*choose tuner.curvature"):
        source.curvature()
