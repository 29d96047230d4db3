"""YellowFin as a torch optimizer: the update, groups, schedulers, state, and what it does with strange gradients."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, StepLR

from tuner import NonFiniteGradient, YellowFin
from tuner.yellowfin import YellowFinTarget


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draw).to(dtype)) for shape in shapes]


def fill(params: list[nn.Parameter], t: int, scale: float = 1.0) -> None:
    draw = torch.Generator().manual_seed(100 + t)
    for p in params:
        p.grad = (scale * (p.detach().float() + torch.randn(p.shape, generator=draw))).to(p.dtype)


def flat(params: list[nn.Parameter]) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in params])


def run(optimizer: YellowFin, params: list[nn.Parameter], steps: range) -> None:
    for t in steps:
        fill(params, t)
        optimizer.step()


def test_the_update_is_the_displacement_form_of_what_the_target_decides() -> None:
    params = tensors((20, 3), (7,))
    optimizer, target = YellowFin(params), YellowFinTarget(67)
    x = flat(params)
    previous = x.clone()
    for t in range(50):
        fill(params, t)
        g = torch.cat([p.grad.reshape(-1) for p in params if p.grad is not None])
        target.look(slice(0, 67), g)
        d = target.decide()
        target.absorb(slice(0, 67), g)
        x, previous = x + d.momentum * (x - previous) - d.learning_rate * d.scale * g, x
        optimizer.step()
        torch.testing.assert_close(flat(params), x)
        assert optimizer.param_groups[0]["lr"] == d.learning_rate
        assert optimizer.param_groups[0]["momentum"] == d.momentum


def test_it_learns_the_digits() -> None:
    digits, torch_seed = load_digits(), 0
    torch.manual_seed(torch_seed)
    x = torch.tensor(digits.data, dtype=torch.float32) / 16
    y = torch.tensor(digits.target)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = YellowFin(model.parameters())
    draw = torch.Generator().manual_seed(0)
    for _ in range(800):
        rows = torch.randint(len(x), (64,), generator=draw)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    assert (model(x).argmax(1) == y).float().mean() > 0.9


def test_groups_share_one_rate_and_momentum_and_keep_their_own_factor() -> None:
    params = tensors((10,), (10,))
    optimizer = YellowFin([{"params": params[0]}, {"params": params[1], "lr_factor": 0.1}], lr_factor=2.0)
    run(optimizer, params, range(5))
    first, second = optimizer.param_groups
    assert optimizer.settings is not None
    assert first["lr"] == pytest.approx(2.0 * optimizer.settings.learning_rate)
    assert second["lr"] == pytest.approx(0.1 * optimizer.settings.learning_rate)
    assert first["momentum"] == second["momentum"] == optimizer.settings.momentum


def test_weight_decay_enters_the_statistics_and_the_update_of_its_group_only() -> None:
    params, twins = tensors((10,), (10,)), tensors((10,), (10,))
    decayed = YellowFin([{"params": params[0], "weight_decay": 0.3}, {"params": params[1]}])
    plain = YellowFin(twins)
    for t in range(5):
        fill(params, t)
        fill(twins, t)
        assert twins[0].grad is not None
        twins[0].grad.add_(twins[0].detach(), alpha=0.3)
        decayed.step()
        plain.step()
        torch.testing.assert_close(flat(params), flat(twins))
    assert decayed.param_groups[0]["lr"] == pytest.approx(plain.param_groups[0]["lr"], rel=1e-5)


SCHEDULERS: list[tuple[Callable[[Any], LRScheduler], list[float]]] = [
    (lambda o: StepLR(o, step_size=2, gamma=0.1), [1, 1, 0.1, 0.1, 0.01]),
    (lambda o: LambdaLR(o, lambda t: 1 / (t + 1)), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]),
    (lambda o: CosineAnnealingLR(o, T_max=4), [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(5)]),
]


@pytest.mark.parametrize(("make", "expected"), SCHEDULERS)
def test_torch_s_schedulers_drive_the_factor(make: Callable[[Any], LRScheduler], expected: list[float]) -> None:
    params = tensors((10,))
    optimizer = YellowFin(params)
    scheduler, factors = make(optimizer.lr_factor), []
    for t in range(5):
        run(optimizer, params, range(t, t + 1))
        assert optimizer.settings is not None
        factors.append(optimizer.param_groups[0]["lr"] / optimizer.settings.learning_rate)
        scheduler.step()
    assert factors == pytest.approx(expected, abs=1e-12)


def test_the_factor_scales_the_movement() -> None:
    moved = []
    for factor in (1.0, 0.25):
        params = tensors((10,))
        start = flat(params)
        run(YellowFin(params, lr_factor=factor), params, range(1))
        moved.append(flat(params) - start)
    torch.testing.assert_close(moved[1], 0.25 * moved[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("closed_loop", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 30])
def test_a_restored_optimizer_continues_bit_exactly(steps: int, closed_loop: bool) -> None:
    params, twins = tensors((10, 3), (5,)), tensors((10, 3), (5,))
    first, second = YellowFin(params, closed_loop=closed_loop), YellowFin(twins, closed_loop=closed_loop)
    first.lr_factor.param_groups[0]["lr"] = 0.7
    run(first, params, range(steps))
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    with torch.no_grad():
        for p, q in zip(params, twins, strict=True):
            q.copy_(p)
    second.load_state_dict(torch.load(stream, weights_only=True))
    run(first, params, range(steps, steps + 10))
    run(second, twins, range(steps, steps + 10))
    assert flat(params).equal(flat(twins))
    assert first.settings == second.settings
    assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]


def test_the_state_of_another_optimizer_is_refused() -> None:
    params = tensors((3,))
    with pytest.raises(ValueError, match="expected the state of a YellowFin"):
        YellowFin(params).load_state_dict(torch.optim.SGD(params).state_dict())


def test_a_deep_copy_goes_its_own_way() -> None:
    params = tensors((10,))
    optimizer = YellowFin(params)
    run(optimizer, params, range(3))
    twins, other = copy.deepcopy((params, optimizer))
    run(other, twins, range(3, 6))
    assert optimizer.version == 3
    run(optimizer, params, range(3, 6))
    assert flat(params).equal(flat(twins))


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    params, twins = tensors((10,)), tensors((10,))
    first, second = YellowFin(params), YellowFin(twins)
    run(first, params, range(3))
    run(second, twins, range(3))
    params[0].grad = torch.full((10,), float("nan"))
    with pytest.raises(NonFiniteGradient):
        first.step()
    run(first, params, range(3, 6))
    run(second, twins, range(3, 6))
    assert flat(params).equal(flat(twins))


def test_parameters_without_a_gradient_stay_where_they_are() -> None:
    params = tensors((10,), (10,))
    optimizer = YellowFin(params, weight_decay=0.1)
    run(optimizer, params, range(3))
    here = params[1].detach().clone()
    for t in range(3):
        fill(params[:1], t)
        params[1].grad = None
        optimizer.step()
    assert params[1].equal(here)


def test_a_step_without_any_gradient_moves_nothing() -> None:
    params = tensors((10,))
    before = flat(params)
    YellowFin(params).step()
    assert flat(params).equal(before)


def test_parameters_may_be_added_in_the_middle() -> None:
    params = tensors((10,), (4,))
    optimizer = YellowFin(params[:1], closed_loop=True)
    run(optimizer, params[:1], range(5))
    optimizer.add_param_group({"params": params[1:], "lr_factor": 0.5})
    before = params[1].detach().clone()
    run(optimizer, params, range(5, 10))
    assert not params[1].equal(before)
    assert optimizer.lr_factor.param_groups[1]["lr"] == 0.5


def test_the_closure_is_called_with_gradients_on_and_its_loss_returned() -> None:
    params = tensors((10,))
    optimizer = YellowFin(params)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (params[0] ** 2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    first = optimizer.step(closure)
    second = optimizer.step(closure)
    assert first is not None
    assert second is not None
    assert second < first


def test_the_closed_loop_follows_the_target_when_nothing_is_late() -> None:
    params = tensors((200,))
    optimizer = YellowFin(params, closed_loop=True, smoothing="ema")
    momenta = []
    for t in range(400):
        run(optimizer, params, range(t, t + 1))
        assert optimizer.settings is not None
        momenta.append(optimizer.settings.momentum)
    assert momenta[:2] == [0.0, 0.0]
    assert momenta[-1] == pytest.approx(optimizer.settings.target_momentum, rel=0.2)


@pytest.mark.parametrize("late", [0, 3])
def test_late_gradients_are_measured_at_their_own_version(late: int) -> None:
    params = tensors((500,))
    optimizer = YellowFin(params, closed_loop=True, smoothing="none")
    past, applied, rates, momenta = [], [], [], []
    for t in range(40):
        past.append(flat(params))
        version = max(0, t - late)
        params[0].grad = past[version].clone()
        optimizer.step(version=version)
        assert optimizer.settings is not None
        applied.append(past[version] * optimizer.settings.scale)
        rates.append(optimizer.settings.learning_rate)
        momenta.append(optimizer.settings.momentum)
    v = 39 - late
    moved = past[v] - past[v - 1]
    excess = rates[v] * (applied[39] - applied[v]) / moved
    assert optimizer.total_momentum == pytest.approx(momenta[v] + float(excess.median()), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_descend(dtype: torch.dtype) -> None:
    params = tensors((50,), dtype=dtype)
    start = flat(params).float().norm()
    optimizer = YellowFin(params, closed_loop=True)
    for _ in range(100):
        params[0].grad = params[0].detach().clone()
        optimizer.step()
    assert flat(params).float().norm() < 0.7 * start
    assert params[0].dtype == dtype


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ValueError, match="dense real"):
        YellowFin(table.parameters()).step()


@pytest.mark.parametrize("option", [{"beta": 1.0}, {"window": 0}, {"lr_factor": 0.0}, {"weight_decay": -1.0}])
def test_an_option_out_of_range_is_refused_by_name(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(option))}: expected"):
        YellowFin(tensors((3,)), **option)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_model_follows_the_cpu_s() -> None:
    params = tensors((50, 3), (7,))
    twins = [nn.Parameter(p.detach().cuda()) for p in params]
    first, second = YellowFin(params), YellowFin(twins)
    for t in range(50):
        fill(params, t)
        for p, q in zip(params, twins, strict=True):
            assert p.grad is not None
            q.grad = p.grad.cuda()
        first.step()
        second.step()
    torch.testing.assert_close(flat(twins).cpu(), flat(params))
