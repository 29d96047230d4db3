"""Total momentum: equal to μ without staleness, the exact identity with it, and the theory of random workers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from tuner.total_momentum import TotalMomentum

SIZE = 3000


def estimator(size: int = SIZE, sample: int = 0, history: int = 8, seed: int = 0) -> TotalMomentum:
    return TotalMomentum(size, sample=sample, history=history, seed=seed)


@pytest.mark.parametrize("mu", [-0.3, 0.0, 0.5, 0.9])
def test_without_staleness_it_is_the_momentum_for_any_noise_in_float32(mu: float) -> None:
    noise = torch.Generator().manual_seed(1)
    curvature = torch.logspace(-2, 0, SIZE)
    x = torch.randn(SIZE, generator=noise)
    previous = x.clone()
    measure = estimator(sample=2048)
    measure.record(0, measure.sample(x), 0.0)
    for t in range(60):
        alpha = 0.05 * (1.0 + 0.5 * (t % 3))
        g = curvature * x + torch.randn(SIZE, generator=noise)
        x, previous = x + mu * (x - previous) - alpha * g, x
        measure.record(t + 1, measure.sample(x), alpha)
        got = measure.measure(t, measure.sample(g))
        assert (got is None) == (t == 0)
        assert got is None or got == pytest.approx(mu, abs=1e-4)


@pytest.mark.parametrize("alpha", [1e-3, 1e-4, 1e-5])
def test_rounding_of_short_steps_does_not_bias_the_median(alpha: float) -> None:
    noise = torch.Generator().manual_seed(2)
    x = torch.randn(SIZE, generator=noise)
    previous = x.clone()
    measure, seen = estimator(), []
    measure.record(0, measure.sample(x), 0.0)
    for t in range(300):
        g = torch.randn(SIZE, generator=noise)
        x, previous = x + 0.5 * (x - previous) - alpha * g, x
        measure.record(t + 1, measure.sample(x), alpha)
        got = measure.measure(t, measure.sample(g))
        seen += [] if got is None else [got]
    assert len(seen) > 290
    assert sum(seen) / len(seen) == pytest.approx(0.5, abs=1e-4)


def test_coordinates_that_move_by_a_few_units_in_the_last_place_are_left_out() -> None:
    noise = torch.Generator().manual_seed(5)
    x = torch.where(torch.arange(SIZE) < 2400, 1000.0, 0.01)
    previous = x.clone()
    measure = estimator()
    measure.record(0, measure.sample(x), 0.0)
    for t in range(20):
        g = torch.randn(SIZE, generator=noise)
        x, previous = x + 0.9 * (x - previous) - 1e-4 * g, x
        measure.record(t + 1, measure.sample(x), 1e-4)
        got = measure.measure(t, measure.sample(g))
        assert got is None or got == pytest.approx(0.9, abs=1e-4)
    assert got is not None


class Delayed:
    """Gradients of a quadratic with noise, applied `delay` updates late: x, g, a and α by version, in float64."""

    def __init__(self, delay: int, momenta: tuple[float, ...], history: int) -> None:
        self.h, self.noise = torch.linspace(0.1, 1.0, SIZE, dtype=torch.float64), torch.Generator().manual_seed(3)
        self.xs = [self._normal()]
        self.gs: list[Tensor] = []
        self.applied: list[Tensor] = []
        self.alphas: list[float] = []
        self.delay, self.momenta = delay, momenta
        self.measure = TotalMomentum(SIZE, sample=0, history=history, seed=0, resolution=2.0**-52)
        self.measure.record(0, self.xs[0], 0.0)

    def _normal(self) -> Tensor:
        return torch.randn(SIZE, dtype=torch.float64, generator=self.noise)

    def mu(self, version: int) -> float:
        """μ of the update of that version."""
        return self.momenta[version % len(self.momenta)]

    def updates(self) -> Iterator[int]:
        """Thirty updates; the version that the gradient of each was computed at."""
        for t in range(30):
            self.gs.append(self.h * self.xs[t] + 0.1 * self._normal())
            v = max(0, t - self.delay)
            self.applied.append(self.gs[v])
            self.alphas.append(0.05 + 0.01 * (t % 2))
            step = self.mu(t) * (self.xs[t] - self.xs[max(0, t - 1)])
            self.xs.append(self.xs[t] + step - self.alphas[t] * self.applied[t])
            self.measure.record(t + 1, self.xs[t + 1], self.alphas[t], self.mu(t))
            yield v

    def over(self, v: int, step: Tensor) -> float:
        """The median of α (g_v − a) over a step."""
        return float((self.alphas[v] * (self.gs[v] - self.applied[v]) / step).median())


@pytest.mark.parametrize("delay", [0, 1, 4])
def test_the_identity_is_exact_at_any_delay(delay: int) -> None:
    run = Delayed(delay, (0.4,), delay + 3)
    for v in run.updates():
        if v > 0:
            got = run.measure.measure(v, run.gs[v])
            assert got == pytest.approx(0.4 + run.over(v, run.xs[v] - run.xs[v - 1]), abs=1e-9)


@pytest.mark.parametrize("delay", [0, 1, 4])
def test_the_excess_is_the_same_difference_over_the_step_before_whatever_the_momenta(delay: int) -> None:
    run = Delayed(delay, (-0.3, 0.4, 0.8), delay + 4)
    for v in run.updates():
        got = run.measure.excess(v, run.gs[v])
        if v < 2:
            assert got is None, "two steps before it are needed"
        else:
            mu = run.mu(v)
            assert got == pytest.approx(run.over(v, run.xs[v - 1] - run.xs[v - 2]) / (1 + mu - mu * mu), abs=1e-9)
            assert delay or got == pytest.approx(0.0, abs=1e-9)


def excesses(noise: Callable[[int, int], Tensor], mu: float, h: float, updates: int = 600) -> tuple[float, float]:
    """Means of μ̂_T − μ and of the excess for five workers in turn; noise: of a worker's gradient, by its number."""
    alpha, workers = 0.01, 5
    measure = TotalMomentum(SIZE, sample=0, history=workers + 4, seed=0, resolution=2.0**-52)
    x = previous = torch.ones(SIZE, dtype=torch.float64)
    held = [h * x + noise(worker, 0) for worker in range(workers)]
    read = [0] * workers
    measure.record(0, x, 0.0)
    total, found = [], []
    for t in range(updates):
        worker = t % workers
        x, previous = x + mu * (x - previous) - alpha * held[worker], x
        measure.record(t + 1, x, alpha, mu)
        one, other = measure.measure(read[worker], held[worker]), measure.excess(read[worker], held[worker])
        if one is not None and other is not None:
            total.append(one - mu)
            found.append(other)
        read[worker] = t + 1
        held[worker] = h * x + noise(worker, t // workers + 1)
    return sum(total) / len(total), sum(found) / len(found)


def test_gradients_of_a_worker_that_contradict_its_own_last_are_no_excess() -> None:
    draw = torch.Generator().manual_seed(6)
    batches = torch.randn(5, 3, SIZE, dtype=torch.float64, generator=draw)
    batches -= batches.mean(1, keepdim=True)  # three to an epoch, whose mean is 0: nothing is left to learn
    orders = [[order.sample(range(3), 3) for _ in range(200)] for order in (random.Random(k) for k in range(5))]

    def noise(worker: int, step: int) -> Tensor:
        return batches[worker, orders[worker][step // 3][step % 3]]

    total, found = excesses(noise, 0.0, 0.0)
    assert total > 0.1, "over its own last step it looks like one"
    assert abs(found) < 0.02


@pytest.mark.parametrize("mu", [-0.3, 0.0, 0.5])
def test_in_noise_the_excess_is_that_of_total_momentum_whatever_momentum_is(mu: float) -> None:
    draw = torch.Generator().manual_seed(7)
    total, found = excesses(lambda *_: torch.randn(SIZE, dtype=torch.float64, generator=draw), mu, 2.0, 3000)
    assert found / total == pytest.approx(1.0, rel=0.15)


def test_random_workers_add_momentum_and_divide_the_step_on_average() -> None:
    workers, runs, alpha = 4, 40_000, 0.2
    draw = torch.Generator().manual_seed(4)
    x = torch.ones(runs, dtype=torch.float64)
    views = x.repeat(workers, 1)
    every = torch.arange(runs)
    means = [1.0]
    for _ in range(15):
        who = torch.randint(workers, (runs,), generator=draw)
        x = x - alpha * views[who, every]
        views[who, every] = x
        means.append(float(x.mean()))
    for before, here, after in zip(means, means[1:], means[2:], strict=False):
        momentum_form = (1 - 1 / workers) * (here - before) - alpha / workers * here
        assert after - here == pytest.approx(momentum_form, abs=2e-3)
    assert abs((means[2] - means[1]) - (means[1] - means[0])) > 2e-3


def test_slow_motion_under_delay_shows_momentum_above_the_algorithm_s() -> None:
    alpha, delay = 0.01, 3
    xs = [torch.linspace(1, 2, SIZE)]
    measure = estimator()
    measure.record(0, measure.sample(xs[0]), 0.0)
    for t in range(40):
        xs.append(xs[t] - alpha * xs[max(0, t - delay)])
        measure.record(t + 1, measure.sample(xs[t + 1]), alpha)
    got = measure.measure(37, measure.sample(xs[37]))
    assert got == pytest.approx(alpha * delay, rel=0.1)


def simple_run(measure: TotalMomentum, updates: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.linspace(1, 2, measure._sample.size, dtype=dtype)
    measure.record(0, measure.sample(x), 0.0)
    for t in range(updates):
        x = x - 0.1
        measure.record(t + 1, measure.sample(x), 0.1)
    return torch.ones(measure.count)


def test_forgotten_versions_and_version_zero_cannot_be_measured() -> None:
    measure = estimator(history=5)
    g = simple_run(measure, 10)
    known = [v for v in range(12) if measure.measure(v, g) is not None]
    assert known == [7, 8, 9]
    assert estimator().measure(0, g) is None


def test_coordinates_that_do_not_move_are_left_out() -> None:
    measure = estimator(size=100)
    x = torch.linspace(1, 2, 100)
    moving = (torch.arange(100) < 20).float()
    for t in range(3):
        measure.record(t, measure.sample(x - 0.1 * t * moving), 0.1)
    assert measure.measure(1, 0.5 * moving) == pytest.approx(0.5, abs=1e-5)


def test_too_few_moving_coordinates_give_no_measurement() -> None:
    measure = estimator(size=100)
    moving = (torch.arange(100) < 15).float()
    for t in range(3):
        measure.record(t, measure.sample(1.0 - 0.1 * t * moving), 0.1)
    assert measure.measure(1, moving) is None


def test_the_sample_is_fixed_by_the_seed_sorted_and_without_repetition() -> None:
    numbers = torch.arange(SIZE)
    first = estimator(sample=500, seed=7).sample(numbers)
    assert first.equal(estimator(sample=500, seed=7).sample(numbers))
    assert first.tolist() == sorted(set(first.tolist()))
    assert first.tolist() == sorted(random.Random(7).sample(range(SIZE), 500))
    assert not first.equal(estimator(sample=500, seed=8).sample(numbers))


@pytest.mark.parametrize("sample", [0, SIZE, 2 * SIZE])
def test_a_sample_of_all_is_a_copy_of_the_vector(sample: int) -> None:
    vector = torch.rand(SIZE)
    got = estimator(sample=sample).sample(vector)
    assert got.equal(vector)
    assert got.data_ptr() != vector.data_ptr()


def test_a_vector_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 3000 values, got 7"):
        estimator().sample(torch.ones(7))


def test_a_restored_estimator_continues_bit_exactly() -> None:
    first, second = estimator(sample=100), estimator(sample=100, seed=5)
    g = simple_run(first, 12)
    second.load_state_dict(first.state_dict())
    assert second.measure(10, g) == first.measure(10, g)
    assert second.excess(10, g) == first.excess(10, g) is not None
    older = {name: value for name, value in first.state_dict().items() if name != "momenta"}
    second.load_state_dict(older)
    assert second.measure(10, g) == first.measure(10, g)
    assert math.isnan(second.excess(10, g) or 0.0), "written before momenta were kept: not known"
    assert second.sample(torch.arange(SIZE)).equal(first.sample(torch.arange(SIZE)))


def test_a_state_of_another_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 50 coordinates, got 100"):
        estimator(sample=50).load_state_dict(estimator(sample=100).state_dict())


@pytest.mark.parametrize("mu", [-0.9, -0.618, -0.5])
def test_the_excess_keeps_its_sign_at_any_momentum(mu: float) -> None:
    measure = estimator(size=100)
    for t, x in enumerate((0.0, 1.0, 2.0, 3.0)):
        measure.record(t, measure.sample(torch.full((100,), x)), 1.0, mu)
    got = measure.excess(2, torch.full((100,), mu - 1.0 + 0.5))  # the step was 1, of which momentum made μ
    assert got == pytest.approx(0.5 / 0.25)
