"""The YellowFin target against its slow twin, in blocks, on hostile gradients, and continued."""

from __future__ import annotations

import copy
import math
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tuner import NonFiniteGradient
from tuner.target import Decision
from tuner.yellowfin import YellowFinTarget

SIZE = 400


def feed(target: YellowFinTarget, gradient: Tensor, block: int | None = None) -> Decision:
    size = gradient.numel()
    blocks = [slice(i, min(i + (block or size), size)) for i in range(0, size, block or size)]
    for part in blocks:
        target.look(part, gradient[part])
    decision = target.decide()
    for part in blocks:
        target.absorb(part, gradient[part])
    return decision


def gradients(scale: float | None, steps: int, seed: int = 0) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=SIZE) / np.sqrt(SIZE)
    out = []
    for t in range(steps):
        noise = rng.normal(size=SIZE) / np.sqrt(SIZE) * (1.0 + 0.5 * np.sin(t / 50))
        size = scale if scale is not None else 10.0 ** rng.uniform(-8, 8)
        out.append(torch.from_numpy(((mean * 0.999**t + noise) * size).astype(np.float32)))
    return out


@pytest.mark.parametrize("smoothing", ["none", "ema"])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8, None])
def test_every_step_agrees_with_the_slow_twin(twin: ModuleType, scale: float | None, smoothing: str) -> None:
    target = YellowFinTarget(SIZE, smoothing=smoothing)
    reference = twin.Reference(SIZE, smooth=smoothing == "ema")
    for gradient in gradients(scale, 2000):
        decision = feed(target, gradient)
        alpha, mu = reference.step(gradient.numpy())
        assert decision.learning_rate == pytest.approx(alpha, rel=1e-6, abs=0.0)
        assert decision.momentum == pytest.approx(mu, rel=1e-6, abs=0.0)


def test_the_variance_of_every_fourth_gradient_leads_to_nearly_the_same() -> None:
    always, seldom = YellowFinTarget(SIZE), YellowFinTarget(SIZE, every=4)
    for gradient in gradients(1.0, 2000):
        expected, got = feed(always, gradient), feed(seldom, gradient)
    assert got.learning_rate == pytest.approx(expected.learning_rate, rel=0.02)
    assert got.momentum == pytest.approx(expected.momentum, abs=0.02)
    assert got.gradient_norm == expected.gradient_norm


@pytest.mark.parametrize("scale", [1e-20, 1e-15, 1e18])
def test_squares_outside_float32_do_not_matter(twin: ModuleType, scale: float) -> None:
    target, reference = YellowFinTarget(SIZE), twin.Reference(SIZE, smooth=False)
    for gradient in gradients(scale, 100):
        decision = feed(target, gradient)
        alpha, mu = reference.step(gradient.numpy())
        assert decision.learning_rate == pytest.approx(alpha, rel=1e-6, abs=0.0)
        assert decision.momentum == pytest.approx(mu, rel=1e-6, abs=0.0)
        assert decision.gradient_norm == pytest.approx(float(gradient.double().norm()), rel=1e-6, abs=0.0)


@pytest.mark.parametrize("block", [1, 7, 128])
def test_blocks_give_what_the_whole_gives(block: int) -> None:
    whole, parts = YellowFinTarget(SIZE), YellowFinTarget(SIZE)
    for gradient in gradients(1.0, 40):
        expected, got = feed(whole, gradient), feed(parts, gradient, block)
        assert got.learning_rate == pytest.approx(expected.learning_rate, rel=1e-6)
        assert got.momentum == pytest.approx(expected.momentum, rel=1e-6)


def test_a_vector_longer_than_one_chunk_is_summed_exactly_enough() -> None:
    gradient = torch.rand(200_001, generator=torch.Generator().manual_seed(0))
    assert feed(YellowFinTarget(200_001), gradient).gradient_norm == pytest.approx(
        float(gradient.double().norm()), rel=1e-7
    )


def test_identical_gradients_give_newton_s_step_and_no_momentum() -> None:
    target = YellowFinTarget(SIZE)
    for gradient in gradients(1.0, 1) * 1500:
        decision = feed(target, gradient)
    norm = decision.gradient_norm
    assert decision.momentum == pytest.approx(0.0, abs=1e-6)
    assert decision.learning_rate == pytest.approx(1 / norm**2, rel=1e-3)


def test_zero_gradients_from_the_first_step_give_zero() -> None:
    target = YellowFinTarget(SIZE)
    for _ in range(50):
        assert feed(target, torch.zeros(SIZE)) == Decision(0.0, 0.0, 1.0, 0.0)
    decision = feed(target, gradients(1.0, 1)[0])
    assert 0.0 < decision.learning_rate < math.inf


def test_a_zero_gradient_hardly_moves_the_learning_rate() -> None:
    target = YellowFinTarget(SIZE, smoothing="none")
    for gradient in gradients(1.0, 300):
        before = feed(target, gradient)
    after = feed(target, torch.zeros(SIZE))
    assert after.learning_rate == pytest.approx(before.learning_rate, rel=0.05)


def test_zero_gradients_for_ever_stay_finite() -> None:
    target = YellowFinTarget(4, beta=0.5)
    feed(target, torch.ones(4))
    for _ in range(2500):
        decision = feed(target, torch.zeros(4))
        assert math.isfinite(decision.learning_rate)
        assert 0.0 <= decision.momentum <= 1.0


def test_a_spike_is_clipped_to_the_range_before_it() -> None:
    target = YellowFinTarget(SIZE)
    for gradient in gradients(1.0, 100):
        feed(target, gradient)
    decision = feed(target, gradients(1.0, 1)[0] * 1e10)
    assert decision.scale * decision.gradient_norm < 3.0
    follow = feed(target, gradients(1.0, 1)[0])
    assert follow.learning_rate == pytest.approx(decision.learning_rate, rel=0.2)


def test_without_clipping_nothing_is_scaled() -> None:
    target = YellowFinTarget(SIZE, clip=False)
    assert all(feed(target, g).scale == 1.0 for g in gradients(None, 30))


def test_warm_up_lasts_ten_windows() -> None:
    target = YellowFinTarget(SIZE, window=3, smoothing="none")
    bare = YellowFinTarget(SIZE, window=3, smoothing="none")
    bare._count = 1000
    factors = [feed(target, g).learning_rate / feed(bare, g).learning_rate for g in gradients(1.0, 35)]
    assert factors == pytest.approx([min(1.0, (t + 1) / 30) for t in range(35)], rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_leaves_no_trace(bad: float) -> None:
    target = YellowFinTarget(SIZE)
    for gradient in gradients(1.0, 5):
        feed(target, gradient)
    untouched = copy.deepcopy(target)
    broken = gradients(1.0, 1)[0].clone()
    broken[17] = bad
    target.look(slice(0, SIZE), broken)
    with pytest.raises(NonFiniteGradient, match="expected a finite gradient"):
        target.decide()
    assert feed(target, gradient) == feed(untouched, gradient)


def test_deciding_without_looking_is_refused() -> None:
    with pytest.raises(RuntimeError, match="look"):
        YellowFinTarget(SIZE).decide()


hostile = st.lists(
    st.tuples(st.sampled_from([0.0, 1e-45, 1e-40, 1e-22, 1e-8, 1.0, 1e10, 1e20, 1e37]), st.integers(0, 3)),
    min_size=1,
    max_size=40,
)


@given(hostile, st.sampled_from(["none", "ema"]), st.booleans(), st.booleans(), st.integers(1, 3))
@settings(deadline=None)
def test_hostile_sequences_never_give_nan(
    sequence: list[tuple[float, int]], smoothing: str, clip: bool, robust: bool, every: int
) -> None:
    target = YellowFinTarget(8, smoothing=smoothing, clip=clip, robust=robust, every=every)
    for scale, seed in sequence:
        gradient = torch.randn(8, generator=torch.Generator().manual_seed(seed)) * scale
        target.hear(scale * seed)
        decision = feed(target, gradient)
        assert 0.0 <= decision.learning_rate <= 1e30
        assert 0.0 <= decision.momentum <= 1.0
        assert 0.0 < decision.scale <= 1.0


@given(st.integers(0, 30), st.sampled_from(["none", "ema"]), st.booleans(), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_a_restored_target_continues_bit_exactly(steps: int, smoothing: str, robust: bool, every: int) -> None:
    first, second = (YellowFinTarget(SIZE, smoothing=smoothing, window=2, robust=robust, every=every) for _ in range(2))
    sequence = gradients(None, steps + 5)
    for gradient in sequence[:steps]:
        feed(first, gradient)
    second.load_state_dict(first.state_dict())
    for gradient in sequence[steps:]:
        assert feed(second, gradient) == feed(first, gradient)


def test_a_state_of_another_size_is_refused() -> None:
    first = YellowFinTarget(SIZE)
    feed(first, gradients(1.0, 1)[0])
    with pytest.raises(ValueError, match="expected 3 values, got 400"):
        YellowFinTarget(3).load_state_dict(first.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_agree_with_float32(dtype: torch.dtype) -> None:
    target, single = YellowFinTarget(SIZE), YellowFinTarget(SIZE)
    for gradient in gradients(1.0, 30):
        rounded = gradient.to(dtype)
        got, expected = feed(target, rounded), feed(single, rounded.float())
        assert got.learning_rate == pytest.approx(expected.learning_rate, rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_agrees_with_the_cpu() -> None:
    target, host = YellowFinTarget(SIZE), YellowFinTarget(SIZE)
    for gradient in gradients(None, 200):
        got, expected = feed(target, gradient.cuda()), feed(host, gradient)
        assert got.learning_rate == pytest.approx(expected.learning_rate, rel=1e-6)
        assert got.momentum == pytest.approx(expected.momentum, rel=1e-6)
