"""Constant, step and cosine targets."""

from __future__ import annotations

import pytest
import torch

from tuner import NonFiniteGradient
from tuner.constant import Constant
from tuner.schedule import Cosine, Step


def rates(target: Constant, updates: int) -> list[float]:
    out = []
    for _ in range(updates):
        target.look(slice(0, 2), torch.ones(2))
        out.append(target.decide().learning_rate)
        target.absorb(slice(0, 2), torch.ones(2))
    return out


def test_the_constant_target_repeats_the_user_s_numbers() -> None:
    target = Constant(0.1, 0.9)
    target.look(slice(0, 2), torch.tensor([3.0, 0.0]))
    target.look(slice(2, 4), torch.tensor([0.0, 4.0]))
    decision = target.decide()
    assert (decision.learning_rate, decision.momentum, decision.scale) == (0.1, 0.9, 1.0)
    assert decision.gradient_norm == pytest.approx(5.0)


def test_the_step_target_falls_at_its_milestones() -> None:
    target = Step(1.0, 0.9, milestones=(2, 4), decay=0.1)
    assert rates(target, 6) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_step_target_warms_up_linearly() -> None:
    target = Step(1.0, 0.9, milestones=(), decay=0.1, warmup=4)
    assert rates(target, 5) == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_the_cosine_target_warms_up_and_then_falls_to_zero() -> None:
    target = Cosine(2.0, 0.9, updates=12, warmup=2)
    got = rates(target, 14)
    assert got[:3] == pytest.approx([1.0, 2.0, 2.0])
    assert got[7] == pytest.approx(1.0)
    assert got[12:] == pytest.approx([0.0, 0.0], abs=1e-15)
    assert got[2:] == sorted(got[2:], reverse=True)


def test_a_cosine_that_is_all_warm_up_never_divides_by_zero() -> None:
    assert rates(Cosine(1.0, 0.9, updates=2, warmup=2), 3) == pytest.approx([0.5, 1.0, 1.0])


def test_a_restored_schedule_goes_on_where_it_was() -> None:
    first, second = (Cosine(1.0, 0.9, updates=10) for _ in range(2))
    rates(first, 4)
    second.load_state_dict(first.state_dict())
    assert rates(second, 3) == rates(first, 3)


def test_a_bad_gradient_does_not_advance_the_schedule() -> None:
    target = Step(1.0, 0.9, milestones=(1,), decay=0.1)
    target.look(slice(0, 2), torch.tensor([1.0, float("nan")]))
    with pytest.raises(NonFiniteGradient):
        target.decide()
    assert rates(target, 2) == pytest.approx([1.0, 0.1])


def test_deciding_without_looking_is_refused() -> None:
    with pytest.raises(RuntimeError, match="look"):
        Constant(0.1, 0.9).decide()
