"""The distance target: known answers on functions whose optimum is known, and what its state holds."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tuner.distance import GAIN, GROWTH, INITIAL, LearntDistance, schedule
from tuner.target import Decision, NonFiniteGradient

SIZE, UPDATES = 40, 1500
WHOLE = slice(0, SIZE)


class Descent:
    """Steps of length α in every coordinate, as Adam's are, on ½ Σ hᵢ (xᵢ − x*ᵢ)²; x* is as far as `distance` away.

    scale: of the loss.   delay: of the gradients, in updates.
    """

    def __init__(self, distance: float, scale: float = 1.0, delay: int = 0, updates: int = UPDATES) -> None:
        draw = torch.Generator().manual_seed(0)
        self.target = LearntDistance(SIZE, momentum=0.9, updates=updates)
        self.h, self.scale, self.delay = scale * torch.linspace(0.1, 1.0, SIZE), scale, delay
        self.optimum = distance * torch.linspace(-1.0, 1.0, SIZE)[torch.randperm(SIZE, generator=draw)]
        self.xs = [torch.zeros(SIZE)]
        self.first, self.second = torch.zeros(SIZE), torch.zeros(SIZE)

    def step(self) -> Decision:
        t = len(self.xs) - 1
        origin = self.xs[max(0, t - self.delay)]
        g = self.h * (origin - self.optimum)
        decision = told(self.target, g, origin)
        self.first = 0.9 * self.first + 0.1 * g
        self.second = 0.95 * self.second + 0.05 * g.square()
        mean, root = self.first / (1 - 0.9 ** (t + 1)), (self.second / (1 - 0.95 ** (t + 1))).sqrt()
        self.xs.append(self.xs[-1] - decision.learning_rate * mean / (root + 1e-20 * self.scale))
        return decision

    def left(self) -> float:
        """The largest distance of any coordinate to the optimum."""
        return float((self.xs[-1] - self.optimum).abs().max())

    def go(self, updates: int) -> list[Decision]:
        return [self.step() for _ in range(updates)]


def told(target: LearntDistance, gradient: Tensor, origin: Tensor, blocks: int = 1) -> Decision:
    """Look at all blocks, decide, absorb all."""
    parts = [slice(k * SIZE // blocks, (k + 1) * SIZE // blocks) for k in range(blocks)]
    for part in parts:
        target.look(part, gradient[part], origin[part])
    decision = target.decide()
    for part in parts:
        target.absorb(part, gradient[part])
    return decision


@pytest.mark.parametrize("distance", [1.0, 5.0, 30.0])
def test_without_staleness_it_finds_how_far_the_optimum_is_within_a_factor_of_five(distance: float) -> None:
    descent = Descent(distance)
    descent.go(UPDATES)
    assert distance / 5 < descent.target.distance < distance
    assert descent.left() < 1e-5 * distance


@pytest.mark.parametrize("delay", [0, 3, 15])
@pytest.mark.parametrize("distance", [0.05, 1.0, 30.0])
def test_it_is_a_lower_bound_for_late_gradients_too_and_gets_there(distance: float, delay: int) -> None:
    descent = Descent(distance, delay=delay)
    descent.go(UPDATES)
    assert INITIAL < descent.target.distance < distance
    assert descent.left() < 0.01 * distance


@pytest.mark.parametrize("scale", [1e6, 1e-6])
def test_the_scale_of_the_loss_does_not_matter(scale: float) -> None:
    one, other = Descent(1.0), Descent(1.0, scale)
    for _ in range(600):
        ours, theirs = one.step(), other.step()
        assert theirs.learning_rate == pytest.approx(ours.learning_rate, rel=1e-6)
        assert other.target.distance == pytest.approx(one.target.distance, rel=1e-6)
    assert one.target.distance > 100 * INITIAL


def test_the_estimate_starts_at_its_first_value_and_grows_by_two_percent_an_update_at_most() -> None:
    descent, seen = Descent(1e4), []
    for _ in range(300):
        descent.step()
        seen.append(descent.target.distance)
    assert seen[0] == INITIAL
    assert all(a <= b <= a * (1 + GROWTH) * (1 + 1e-12) for a, b in pairwise(seen))
    assert seen[-1] == pytest.approx(INITIAL * 1.02**298, rel=0.3), "far away nothing else limits it"


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
        assert decision.learning_rate == pytest.approx(GAIN * descent.target.distance * share, rel=1e-12)
        assert decision.floor == pytest.approx(1e-3 * share, rel=1e-12)
        assert (decision.momentum, decision.scale) == (0.9, 1.0)
    assert decision.learning_rate < 2e-4 * descent.target.distance
    assert descent.step().learning_rate == 0.0, "beyond the last update"


def test_the_schedule_by_hand() -> None:
    assert [schedule(t, 1000) for t in (0, 500, 999, 1000, 2000)] == pytest.approx(
        [1 / 40, 0.5**1.5, 0.001**1.5, 0.0, 0.0], abs=1e-15
    )
    rising = [schedule(t, 10**9) for t in range(40)]
    assert rising == pytest.approx([(t + 1) / 40 for t in range(40)], rel=1e-6)


def test_the_estimate_by_hand() -> None:
    """Three updates of one coordinate, with everything written out."""
    target = LearntDistance(1, momentum=0.0, updates=10**9)
    x, beta3 = [5.0, 4.0, 2.0], math.sqrt(0.999)
    numerator = total = 0.0
    for t, (here, g) in enumerate(zip(x, (1.0, 2.0, 3.0), strict=True)):
        target.look(slice(0, 1), torch.tensor([g]), torch.tensor([here]))
        target.decide()
        target.absorb(slice(0, 1), torch.tensor([g]))
        k = (1 - beta3) * (t + 1) / 40 * (target.distance / 1e-3) ** 2
        numerator, total = beta3 * numerator + k * g * (5.0 - here), beta3 * total + k * g
        state = target.state_dict()
        assert state["numerator"] == pytest.approx(numerator, rel=1e-6)
        assert state["norm"] == pytest.approx(total, rel=1e-6)
    assert target.distance == pytest.approx(1e-3 * 1.02, rel=1e-9), "r/‖s‖₁ is about 1, so growth limits it"


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


def same(one: dict[str, object], other: dict[str, object]) -> bool:
    pairs = [(one[key], other[key]) for key in one.keys() | other.keys()]
    return all(torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b for a, b in pairs)
