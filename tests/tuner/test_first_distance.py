"""Where the distance target starts in each layer: from its magnitude and shape, and shorter beside a normalisation."""

from __future__ import annotations

import pytest
import torch

from tests.tuner.telling import SIZE, told
from tuner.distance import LearntDistance, falling
from tuner.first_distance import APART, FIRST, INVARIANT, SMALL, first_distances, magnitudes
from tuner.layers import Layers
from tuner.warmup import FIRST as PART
from tuner.warmup import linear


def test_layers_start_with_their_own_magnitude_within_a_factor_of_four_of_the_whole() -> None:
    target = LearntDistance(SIZE, momentum=0.9, updates=10, layers=(10, 10, 20))
    origin = torch.cat((torch.full((10,), 0.0), torch.full((10,), 1.0), torch.full((20,), 2.0)))
    told(target, torch.ones(SIZE), origin)
    whole = FIRST * 1.25
    assert target.distances == pytest.approx((whole / 4, FIRST, FIRST * 2.0), rel=1e-6)
    decision = told(target, torch.ones(SIZE), origin)
    assert decision.strides is not None
    rates = [decision.learning_rate * factor for factor in decision.strides.factors]
    assert rates == pytest.approx([d * linear(1, 10) * falling(1, 10) for d in target.distances], rel=1e-12)


USUAL = (1 / 16, 1 / 4)
"""The mean magnitudes of PyTorch's weights with fan-ins of 64 and 4."""


@pytest.mark.parametrize(
    ("own", "counted"),
    [
        ((0.0, 0.0), USUAL),
        ((0.0, 1.0), (USUAL[0], 1.0)),
        ((0.001, 0.2), (SMALL * USUAL[0], 0.2)),
        ((0.04, 0.0), (0.04, USUAL[1])),
    ],
)
def test_what_starts_at_nothing_or_at_little_counts_by_its_shape(
    own: tuple[float, float], counted: tuple[float, float]
) -> None:
    start = torch.cat([torch.full((20,), of) for of in own])
    assert magnitudes(start, Layers(SIZE, (20, 20)), (64, 4)) == pytest.approx(counted, rel=1e-6)
    assert magnitudes(start, Layers(SIZE, (20, 20))) == pytest.approx(own, rel=1e-6), "no shapes: as they are"
    assert magnitudes(start, Layers(SIZE, (20, 20)), (0, 0)) == pytest.approx(own, rel=1e-6), "vectors: as they are"


def test_what_a_layer_counts_as_is_in_the_mean_of_all() -> None:
    layers = Layers(SIZE, (30, 10))
    of = (1 / 16, 0.001)
    start = torch.cat((torch.zeros(30), torch.full((10,), 0.001)))
    whole = FIRST * (0.75 * of[0] + 0.25 * of[1])
    assert first_distances(start, layers, [False, False], (64, 0)) == pytest.approx(
        [FIRST * of[0], whole / APART], rel=1e-6
    )


@pytest.mark.parametrize("shape", [(10, 64), (8, 4, 3, 3), (50, 16)])
def test_pytorchs_own_start_is_left_as_it_is(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.empty(shape)
    torch.nn.init.kaiming_uniform_(weight, a=5**0.5)
    layers, fans = Layers(weight.numel()), (weight.numel() // shape[0],)
    own = magnitudes(weight.flatten(), layers)
    assert magnitudes(weight.flatten(), layers, fans) == own
    at_nothing = magnitudes(torch.zeros(weight.numel()), layers, fans)
    assert at_nothing == pytest.approx(own, rel=0.05)


def test_fans_are_those_of_the_layers() -> None:
    with pytest.raises(ValueError, match="fans: expected those of 2 layers, got 1"):
        LearntDistance(SIZE, momentum=0.9, updates=10, layers=(20, 20), fans=(64,))


def test_a_layer_whose_scale_does_not_matter_starts_at_half_of_that() -> None:
    target = LearntDistance(SIZE, momentum=0.9, updates=10, layers=(20, 20), weight_decay=0.1)
    origin = torch.linspace(1.0, 2.0, SIZE)
    gradient = torch.ones(SIZE)
    gradient[:20] -= origin[:20] * origin[:20].sum() / origin[:20].square().sum()  # ⟨g, x⟩ = 0 in the first
    told(target, gradient + 0.1 * origin, origin, 4)
    means = [FIRST * float(origin[part].mean()) for part in (slice(0, 20), slice(20, 40))]
    assert target.distances == pytest.approx((INVARIANT * means[0], means[1]), rel=1e-6)


@pytest.mark.parametrize("after_invariant", [True, False])
def test_the_scale_and_shift_of_a_normalisation_start_no_longer_than_the_whole(after_invariant: bool) -> None:
    target = LearntDistance(SIZE, momentum=0.9, updates=10, layers=(30, 10))
    origin = torch.cat((torch.linspace(0.1, 0.2, 30), torch.ones(5), torch.zeros(5)))
    gradient = torch.ones(SIZE)
    if after_invariant:
        gradient[:30] -= origin[:30] * origin[:30].sum() / origin[:30].square().sum()  # ⟨g, x⟩ = 0 there
    told(target, gradient, origin)
    whole = FIRST * float(origin.mean())
    assert target.distances[1] == pytest.approx(whole if after_invariant else FIRST * 0.5, rel=1e-6)


@pytest.mark.parametrize("staleness", [0, 3, 15])
def test_an_embedding_starts_as_many_times_as_far_as_gradients_are_stale(staleness: int) -> None:
    target = LearntDistance(SIZE, momentum=0.9, updates=10, layers=(10, 30), embeddings=(0,))
    target.hear(1.0, staleness)
    decision = told(target, torch.ones(SIZE), torch.ones(SIZE))
    assert target.distances == pytest.approx((FIRST, FIRST), rel=1e-6), "its estimate is as any other's"
    assert decision.strides is not None
    rates = [decision.learning_rate * factor for factor in decision.strides.factors]
    share = PART if staleness else linear(0, 10)
    assert rates == pytest.approx([(1 + staleness) * FIRST * share, FIRST * share], rel=1e-6)
    assert decision.floor == pytest.approx(decision.learning_rate, rel=1e-6)


def test_an_embedding_that_has_gone_further_goes_by_its_own_distance() -> None:
    target = LearntDistance(SIZE, momentum=0.9, updates=10, layers=(10, 30), embeddings=(0,))
    for distance, times in ((2 * FIRST, 4.0), (5 * FIRST, 5.0)):
        target.hear(1.0, 3)
        told(target, torch.ones(SIZE), torch.ones(SIZE))
        target.load_state_dict({**target.state_dict(), "distances": [distance, FIRST]})
        target.hear(1.0, 3)
        decision = told(target, torch.ones(SIZE), torch.ones(SIZE))
        assert decision.strides is not None
        assert decision.strides.factors[0] / decision.strides.factors[1] == pytest.approx(times, rel=1e-6)
