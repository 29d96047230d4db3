"""The distance target: known answers on functions whose optimum is known, and what its state holds."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.tuner.telling import SIZE, told
from tuner.distance import GROWTH, SHRINKING, LearntDistance, falling
from tuner.first_distance import FIRST, INITIAL
from tuner.sparsity import DENSE
from tuner.target import Decision, NonFiniteGradient
from tuner.warmup import FIRST as PART
from tuner.warmup import linear

UPDATES = 1500
WHOLE = slice(0, SIZE)


class Descent:
    """Steps of length α in every coordinate, as Adam's are, on ½ Σ hᵢ (xᵢ − x*ᵢ)²; x* is as far as `distance` away.

    scale: of the loss.   delay: of the gradients, in updates.   noise: standard deviation of a gradient's coordinates.
    start: every coordinate of x_0.
    """

    def __init__(
        self,
        distance: float,
        scale: float = 1.0,
        delay: int = 0,
        updates: int = UPDATES,
        noise: float = 0.0,
        start: float = 0.0,
        layers: tuple[int, ...] = (),
    ) -> None:
        draw = torch.Generator().manual_seed(0)
        self.noise, self.draw = noise * scale, draw
        self.target = LearntDistance(SIZE, momentum=0.9, updates=updates, layers=layers)
        self.h, self.scale, self.delay = scale * torch.linspace(0.1, 1.0, SIZE), scale, delay
        self.optimum = start + distance * torch.linspace(-1.0, 1.0, SIZE)[torch.randperm(SIZE, generator=draw)]
        self.xs = [torch.full((SIZE,), start)]
        self.first, self.second = torch.zeros(SIZE), torch.zeros(SIZE)

    def step(self) -> Decision:
        t = len(self.xs) - 1
        origin = self.xs[max(0, t - self.delay)]
        g = self.h * (origin - self.optimum) + self.noise * torch.randn(SIZE, generator=self.draw)
        decision = told(self.target, g, origin)
        self.first = 0.9 * self.first + 0.1 * g
        self.second = 0.95 * self.second + 0.05 * g.square()
        mean, root = self.first / (1 - 0.9 ** (t + 1)), (self.second / (1 - 0.95 ** (t + 1))).sqrt()
        step = decision.learning_rate * mean / (root + 1e-20 * self.scale)
        assert decision.strides is not None
        for part, factor in decision.strides.pieces(WHOLE):
            step[part] *= factor
        self.xs.append(self.xs[-1] - step)
        return decision

    def left(self) -> float:
        """The largest distance of any coordinate to the optimum."""
        return float((self.xs[-1] - self.optimum).abs().max())

    def go(self, updates: int) -> list[Decision]:
        return [self.step() for _ in range(updates)]


@pytest.mark.parametrize("distance", [1.0, 5.0, 30.0])
def test_without_staleness_it_finds_how_far_the_optimum_is_within_a_factor_of_twenty(distance: float) -> None:
    descent, seen = Descent(distance), []
    for _ in range(UPDATES):
        descent.step()
        seen.append(descent.target.distance)
    assert distance / 20 < max(seen) < distance
    assert descent.left() < 1e-5 * distance


@pytest.mark.parametrize("delay", [0, 3, 15])
@pytest.mark.parametrize("distance", [0.05, 1.0, 30.0])
def test_it_is_a_lower_bound_for_late_gradients_too_and_gets_there(distance: float, delay: int) -> None:
    descent, seen = Descent(distance, delay=delay), []
    for _ in range(UPDATES):
        descent.step()
        seen.append(descent.target.distance)
    assert INITIAL < max(seen) < distance
    assert descent.left() < 0.01 * distance


@pytest.mark.parametrize("scale", [1e6, 1e-6])
def test_the_scale_of_the_loss_does_not_matter(scale: float) -> None:
    one, other = Descent(1.0), Descent(1.0, scale)
    for _ in range(600):
        ours, theirs = one.step(), other.step()
        assert theirs.learning_rate == pytest.approx(ours.learning_rate, rel=1e-6)
        assert other.target.distance == pytest.approx(one.target.distance, rel=1e-6)
    assert one.target.distance > 50 * INITIAL


def test_the_estimate_starts_at_its_first_value_and_grows_by_three_percent_an_update_at_most() -> None:
    descent, seen = Descent(1e4), []
    for _ in range(300):
        descent.step()
        seen.append(descent.target.distance)
    assert seen[0] == INITIAL
    assert all(a <= b <= a * (1 + GROWTH) * (1 + 1e-12) for a, b in pairwise(seen))
    assert seen[-1] == pytest.approx(INITIAL * 1.03**298, rel=0.3), "far away nothing else limits it"


def test_at_the_optimum_it_never_falls_below_its_first_value() -> None:
    descent = Descent(0.0)
    descent.optimum += 1e-9
    descent.go(200)
    assert descent.target.distance == INITIAL


def test_the_learning_rate_is_the_estimate_times_a_warm_up_and_a_fall_to_nothing() -> None:
    descent = Descent(1.0, updates=400)
    for t in range(400):
        decision = descent.step()
        share = min(1.0, (t + 1) / 40) * (1 - t / 400) ** 1.5
        assert decision.learning_rate == pytest.approx(descent.target.distance * share, rel=1e-12)
        assert decision.floor == pytest.approx(1e-3 * share, rel=1e-12)
        assert (decision.momentum, decision.scale) == (0.9, 1.0)
    assert decision.learning_rate < 2e-4 * descent.target.distance
    assert descent.step().learning_rate == 0.0, "beyond the last update"


def test_the_schedule_by_hand() -> None:
    descent, rates = Descent(1.0), []
    for _ in range(UPDATES):
        rates.append(descent.step().learning_rate / descent.target.distance)
    expected = [min(1.0, (t + 1) / 40) * (1 - t / UPDATES) ** 1.5 for t in range(UPDATES)]
    assert rates == pytest.approx(expected, rel=1e-6)
    assert [falling(t, 1000) for t in (0, 500, 999, 1000, 2000)] == pytest.approx(
        [1.0, 0.5**1.5, 0.001**1.5, 0.0, 0.0], abs=1e-15
    )


def test_the_estimate_by_hand() -> None:
    """Three updates of one coordinate, with everything written out."""
    target = LearntDistance(1, momentum=0.0, updates=10**9)
    x, beta3 = [5.0, 4.0, 2.0], 0.98
    first, numerator, total = 0.04 * 5.0, 0.0, 0.0
    for t, (here, g) in enumerate(zip(x, (1.0, 2.0, 3.0), strict=True)):
        target.look(slice(0, 1), torch.tensor([g]), torch.tensor([here]))
        target.decide()
        target.absorb(slice(0, 1), torch.tensor([g]))
        k = (1 - beta3) * (t + 1) / 40 * (target.distance / first) ** 2
        numerator, total = beta3 * numerator + k * g * (5.0 - here), beta3 * total + k * g
        state = target.state_dict()
        assert state["numerators"] == [pytest.approx(numerator, rel=1e-6)]
        assert state["norms"] == [pytest.approx(total, rel=1e-6)]
    assert target.distance == pytest.approx(first * 1.03, rel=1e-9), "r/‖s‖₁ is about 1, so growth limits it"


def test_blocks_do_not_matter() -> None:
    whole, parts = (LearntDistance(SIZE, momentum=0.9, updates=100) for _ in range(2))
    draw = torch.Generator().manual_seed(1)
    for _ in range(20):
        g, x = torch.randn(SIZE, generator=draw), torch.randn(SIZE, generator=draw)
        assert told(parts, g, x, 4).learning_rate == pytest.approx(told(whole, g, x).learning_rate, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("updates", [0, 1, 7])
def test_a_gradient_that_is_not_finite_changes_nothing(updates: int, bad: float) -> None:
    descent = Descent(1.0)
    descent.go(updates)
    before = descent.target.state_dict()
    descent.target.hear(1.0, 7)
    descent.target.look(WHOLE, torch.full((SIZE,), bad), torch.full((SIZE,), 7.0))
    with pytest.raises(NonFiniteGradient):
        descent.target.decide()
    assert same(before, descent.target.state_dict())


def test_a_decision_needs_a_gradient() -> None:
    with pytest.raises(RuntimeError, match="before decide"):
        LearntDistance(SIZE, momentum=0.9, updates=10).decide()


@pytest.mark.parametrize("updates", [0, 1, 60])
def test_its_state_continues_bit_for_bit_and_shares_no_memory(updates: int) -> None:
    one, other = Descent(1.0, delay=2), Descent(1.0, delay=2)
    one.go(updates)
    state, kept = one.target.state_dict(), one.target.state_dict()
    other.target.load_state_dict(state)
    other.xs, other.first, other.second = list(one.xs), one.first, one.second
    assert one.go(30) == other.go(30)
    assert same(one.target.state_dict(), other.target.state_dict())
    assert same(state, kept), "neither the one that gave it nor the one that took it writes into it"


def test_a_state_of_another_size_is_refused() -> None:
    descent = Descent(1.0)
    descent.go(2)
    with pytest.raises(ValueError, match=f"start: expected 3 values, got {SIZE}"):
        LearntDistance(3, momentum=0.9, updates=10).load_state_dict(descent.target.state_dict())
    with pytest.raises(ValueError, match="distances: expected those of 2 layers, got 1"):
        LearntDistance(SIZE, momentum=0.9, updates=10, layers=(1, SIZE - 1)).load_state_dict(
            descent.target.state_dict()
        )


def test_the_first_estimate_is_of_the_size_of_the_parameters() -> None:
    descent = Descent(1.0, start=-3.0)
    descent.step()
    assert descent.target.distance == pytest.approx(FIRST * 3.0, rel=1e-6)


@pytest.mark.parametrize("staleness", [0, 3])
def test_where_gradients_are_sparse_steps_are_longer_and_distances_are_not(staleness: int) -> None:
    target = LearntDistance(SIZE, momentum=0.9, updates=10, layers=(20, 20))
    gradient = torch.ones(SIZE) * (torch.arange(SIZE) < 21)
    target.hear(1.0, staleness)
    decision = told(target, gradient, torch.ones(SIZE))
    factor = (DENSE * 20.0) ** (1.0 + staleness) ** -0.5
    assert target.distances == pytest.approx((FIRST, FIRST), rel=1e-6)
    assert decision.strides is not None
    rates = [decision.learning_rate * stride for stride in decision.strides.factors]
    share = PART if staleness else linear(0, 10)
    assert rates == pytest.approx([FIRST * share, factor**2 * FIRST * share], rel=1e-6)
    assert decision.floor == pytest.approx(FIRST * factor**0.5 * share, rel=1e-6)


def test_a_distance_beyond_what_sparsity_alone_asks_for_is_gone_by_itself() -> None:
    target = LearntDistance(SIZE, momentum=0.9, updates=10, layers=(20, 20))
    gradient = torch.ones(SIZE) * (torch.arange(SIZE) < 21)
    told(target, gradient, torch.ones(SIZE))
    target.load_state_dict({**target.state_dict(), "distances": [FIRST, 5 * FIRST]})
    decision = told(target, gradient, torch.ones(SIZE))
    assert decision.strides is not None
    rate = decision.learning_rate * decision.strides.factors[1]
    assert rate == pytest.approx(5 * FIRST * DENSE * 20.0 * linear(1, 10) * falling(1, 10), rel=1e-6)


def test_each_layer_goes_by_its_own_distance() -> None:
    """Half of the coordinates have 100 times as far to go."""
    descent = Descent(0.5, layers=(20, 20))
    descent.optimum[20:] *= 100.0
    descent.go(UPDATES)
    near, far = descent.target.distances
    assert 0.02 < near < 0.5
    assert 2.5 < far < 50.0
    assert (descent.xs[-1] - descent.optimum).abs().max() < 0.01


def test_an_estimate_falls_where_noise_only_scatters_the_steps_and_not_below_its_first_value() -> None:
    descent, seen = Descent(1.0, noise=0.3, start=0.1, updates=10**6), []
    for _ in range(1500):
        descent.step()
        seen.append(descent.target.distance)
    assert max(seen) > 10 * seen[0]
    assert all(b >= a * (1 - SHRINKING) * (1 - 1e-12) for a, b in pairwise(seen))
    assert seen[-1] < 0.2 * max(seen)
    assert min(seen) == pytest.approx(0.1 * FIRST, rel=1e-6)


def test_without_an_origin_nothing_is_learnt() -> None:
    target = LearntDistance(SIZE, momentum=0.9, updates=100)
    for _ in range(30):
        target.look(WHOLE, torch.ones(SIZE))
        target.decide()
        target.absorb(WHOLE, torch.ones(SIZE))
    assert target.distance == pytest.approx(INITIAL, rel=1e-12)


def same(one: dict[str, object], other: dict[str, object]) -> bool:
    pairs = [(one[key], other[key]) for key in one.keys() | other.keys()]
    return all(torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b for a, b in pairs)
