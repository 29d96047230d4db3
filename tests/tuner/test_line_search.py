"""D from line searches: it takes the place of the published measurement, and nothing else changes."""

from __future__ import annotations

import math

import pytest
import torch

from tuner import NonFiniteGradient
from tuner.from_options import build
from tuner.line_search import ByWorkers, SearchedDistance
from tuner.options import TunerOptions
from tuner.single_step import single_step
from tuner.yellowfin import YellowFinTarget

WHOLE = slice(0, 4)
SEARCHING = ByWorkers(distance_every=1)


def step(
    target: YellowFinTarget, gradient: torch.Tensor, length: float | None = None, loss: float = 1.0
) -> tuple[float, float]:
    target.hear(loss)
    target.look(WHOLE, gradient)
    if length is not None:
        target.look_distance(length)
    chosen = target.decide()
    target.absorb(WHOLE, gradient)
    return chosen.learning_rate, chosen.momentum


def test_the_average_forgets_by_the_update_and_is_one_of_logarithms() -> None:
    searched = SearchedDistance(0.999, 20)
    for length in (16.0, 1.0):
        searched.look(length)
        searched.accept()
    decay = 0.999**20
    assert searched.value == pytest.approx(16.0 ** (decay / (1 + decay)))


@pytest.mark.parametrize("nothing", [0.0, -1.0, math.nan, math.inf])
def test_what_says_nothing_is_no_length(nothing: float) -> None:
    searched = SearchedDistance(0.9, 1)
    searched.look(nothing)
    searched.accept()
    assert not searched.known
    assert searched.value == 0.0


def test_the_single_step_takes_the_length_for_the_distance_from_the_first_one_on() -> None:
    target = YellowFinTarget(4, by_workers=SEARCHING, window=1)
    found = [step(target, torch.tensor([1.0, 0.0, 0.0, 0.0]), length)[1] for length in (None, 1e-9, None)]
    plain = YellowFinTarget(4, window=1)
    published = [step(plain, torch.tensor([1.0, 0.0, 0.0, 0.0]))[1] for _ in range(3)]
    assert found[0] == published[0]
    C = 1e-6  # a constant gradient has no variance: the floor
    assert found[1:] == pytest.approx([single_step(C, 1e-9, 1.0, 1.0)[1]] * 2)
    assert found[1] > published[1] + 0.5, "a short way needs small steps"


def test_with_measured_curvature_both_take_their_place() -> None:
    target = YellowFinTarget(4, by_workers=ByWorkers(1, 1))
    target.look(WHOLE, torch.ones(4))
    target.look_curvature(9.0, 3.0)
    target.look_distance(0.5)
    C = 4.0 * 1e-6
    assert target.decide().momentum == pytest.approx(single_step(C, 0.5, 3.0, 9.0)[1])


@pytest.mark.parametrize("by_workers", [SEARCHING, None])
def test_a_multiple_of_the_loss_changes_the_robust_learning_rate_alone(by_workers: ByWorkers | None) -> None:
    one, other = (YellowFinTarget(4, by_workers=by_workers, robust=True, clip=False) for _ in range(2))
    random = torch.Generator().manual_seed(0)
    for _ in range(30):
        g = torch.randn(4, generator=random, dtype=torch.float64)
        alpha, mu = step(one, g, 0.01, loss=2.0)
        divided, same = step(other, 8.0 * g, 0.01, loss=16.0)
        assert same == pytest.approx(mu, rel=1e-9)
        assert divided == pytest.approx(alpha / 8.0, rel=1e-9)


def test_a_gradient_that_is_not_finite_takes_its_length_with_it() -> None:
    one, other = (YellowFinTarget(4, by_workers=SEARCHING) for _ in range(2))
    for target in (one, other):
        step(target, torch.ones(4), 4.0)
    one.look(WHOLE, torch.full((4,), math.nan))
    one.look_distance(1e9)
    with pytest.raises(NonFiniteGradient):
        one.decide()
    assert one.state_dict()["searched"] == other.state_dict()["searched"]
    assert step(one, torch.ones(4)) == step(other, torch.ones(4))


def test_a_continued_target_goes_on_with_what_was_found() -> None:
    one, other = (YellowFinTarget(4, by_workers=SEARCHING) for _ in range(2))
    step(one, torch.ones(4), 1e-3)
    other.load_state_dict(one.state_dict())
    assert step(one, torch.ones(4)) == step(other, torch.ones(4))
    assert "searched" not in YellowFinTarget(4).state_dict()


def test_searches_are_asked_for_by_yellowfin_only_and_others_say_so() -> None:
    asking = TunerOptions(target="yellowfin", distance_by="line-search", distance_every=7)
    assert (asking.search_every, asking.measure_every) == (7, 0)
    assert TunerOptions(target="yellowfin").search_every == 0
    assert TunerOptions().search_every == 0
    for target in ("distance", "constant"):
        build(TunerOptions(target=target), 4, 10, 0).look_distance(1.0)  # type: ignore[arg-type]
        with pytest.raises(
            ValueError, match=rf"distance_by: expected 'gradients', for the target is '{target}' and only"
        ):
            TunerOptions(target=target, distance_by="line-search")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="distance_every: expected 1 push or more, got 0"):
        TunerOptions(distance_every=0)
    with pytest.raises(ValueError, match="distance_by: expected 'gradients' or 'line-search', got 'guess'"):
        TunerOptions(distance_by="guess")  # type: ignore[arg-type]
