"""Curvature that workers measured: it takes the place of ‖g‖², and nothing else changes."""

from __future__ import annotations

import math

import pytest
import torch

from tuner import NonFiniteGradient
from tuner.curvature import LOWEST, RECENT, MeasuredCurvature
from tuner.from_options import build
from tuner.line_search import ByWorkers
from tuner.options import TunerOptions
from tuner.yellowfin import YellowFinTarget

WHOLE = slice(0, 4)


def step(target: YellowFinTarget, gradient: torch.Tensor, curvature: tuple[float, float] | None = None) -> float:
    target.look(WHOLE, gradient)
    if curvature is not None:
        target.look_curvature(*curvature)
    chosen = target.decide()
    target.absorb(WHOLE, gradient)
    return chosen.momentum


def test_averages_forget_by_the_update_and_not_by_the_measurement() -> None:
    range_ = MeasuredCurvature(0.999, 20)
    for h_max, h_mean in [(16.0, 0.5), *[(1.0, 0.25)] * RECENT]:
        range_.look(h_max, h_mean)
        range_.accept()
    decay = 0.999**20
    share = decay**RECENT * (1 - decay) / (1 - decay ** (RECENT + 1))
    assert range_.h_max == pytest.approx(16.0**share)
    assert range_.h_min == pytest.approx(0.25 + 0.25 * share)


def test_a_rise_of_the_largest_curvature_counts_at_once_and_for_ten_measurements() -> None:
    range_ = MeasuredCurvature(0.999, 1)
    seen = []
    for h_max in (1.0, 8.0, *[1.0] * RECENT):
        range_.look(h_max, 0.5)
        range_.accept()
        seen.append(range_.h_max)
    assert seen[0] == pytest.approx(1.0)
    assert seen[1 : RECENT + 1] == [8.0] * RECENT
    assert seen[-1] < 1.3


@pytest.mark.parametrize(("h_mean", "h_min"), [(-3.0, LOWEST), (0.0, LOWEST), (0.25, 0.25), (9.0, 1.0)])
def test_the_range_stays_a_range_whatever_the_mean_is(h_mean: float, h_min: float) -> None:
    range_ = MeasuredCurvature(0.9, 1)
    range_.look(1.0, h_mean)
    range_.accept()
    assert range_.h_min == pytest.approx(h_min)
    assert range_.h_max == pytest.approx(1.0)


def test_noise_of_either_sign_in_the_mean_averages_out() -> None:
    range_ = MeasuredCurvature(1 - 1e-9, 1)
    for h_mean in (0.5, -0.3, 0.4, -0.2):
        range_.look(1.0, h_mean)
        range_.accept()
    assert range_.h_min == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize("nothing", [(0.0, 0.0), (math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_what_says_nothing_is_no_measurement(nothing: tuple[float, float]) -> None:
    range_ = MeasuredCurvature(0.9, 1)
    range_.look(*nothing)
    range_.accept()
    assert not range_.known


def test_the_momentum_follows_from_the_measured_condition_number() -> None:
    target = YellowFinTarget(4, by_workers=ByWorkers(1))
    momentum = 0.0
    for _ in range(50):
        momentum = step(target, torch.tensor([1e-3, 0.0, 0.0, 0.0]), (100.0, 1.0))
    assert momentum == pytest.approx((9 / 11) ** 2, rel=1e-6)


def test_until_something_is_measured_it_is_the_articles_own() -> None:
    plain, measuring = YellowFinTarget(4), YellowFinTarget(4, by_workers=ByWorkers(20))
    for k in range(1, 6):
        gradient = torch.full((4,), 1.0 / k)
        assert step(plain, gradient, (5.0, 1.0)) == step(measuring, gradient)


def test_a_gradient_that_is_not_finite_takes_its_measurement_with_it() -> None:
    one, other = (YellowFinTarget(4, by_workers=ByWorkers(1)) for _ in range(2))
    for target in (one, other):
        step(target, torch.ones(4), (4.0, 1.0))
    one.look(WHOLE, torch.full((4,), math.nan))
    one.look_curvature(1e9, 1e9)
    with pytest.raises(NonFiniteGradient):
        one.decide()
    assert one.state_dict()["measured"] == other.state_dict()["measured"]
    assert step(one, torch.ones(4)) == step(other, torch.ones(4))


def test_a_continued_target_goes_on_with_what_was_measured() -> None:
    one, other = (YellowFinTarget(4, by_workers=ByWorkers(1)) for _ in range(2))
    step(one, torch.ones(4), (4.0, 1.0))
    other.load_state_dict(one.state_dict())
    assert step(one, torch.ones(4)) == step(other, torch.ones(4))
    assert "measured" not in YellowFinTarget(4).state_dict()


def test_measurements_are_asked_for_only_where_they_are_used() -> None:
    assert TunerOptions(target="yellowfin", curvature="hessian", curvature_every=7).measure_every == 7
    assert TunerOptions(target="yellowfin").measure_every == 0
    assert TunerOptions(curvature="hessian").measure_every == 0
    assert TunerOptions(curvature="hessian", target="constant").measure_every == 0
    build(TunerOptions(target="constant"), 4, 10, 0).look_curvature(1.0, 1.0)
    with pytest.raises(ValueError, match="curvature_every: expected 1 push or more, got 0"):
        TunerOptions(curvature_every=0)
    with pytest.raises(ValueError, match="curvature: expected 'gradient-norm' or 'hessian', got 'exact'"):
        TunerOptions(curvature="exact")  # type: ignore[arg-type]
