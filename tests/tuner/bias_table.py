"""Bias and spread of the three estimators over staleness, workers, momentum and noise; run this file to print them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import product

import torch

from tuner.estimator import Estimator
from tuner.lag import Lag
from tuner.regression import Regression
from tuner.total_momentum import TotalMomentum

SIZE = 256


def estimators(size: int = SIZE, history: int = 256) -> dict[str, Estimator]:
    return {
        "median": TotalMomentum(size, sample=0, history=history, seed=0, resolution=2.0**-52),
        "lag": Lag(),
        "regression": Regression(size, sample=0, history=history, seed=0),
    }


def measured(
    chosen: dict[str, Estimator],
    workers: int,
    noise: float,
    mu: float,
    updates: int,
    random_order: bool,
    rate: float,
    seed: int = 1,
) -> Iterator[dict[str, float | None]]:
    """What each estimator says after each update of ½ Σ hᵢxᵢ², h from 0.2 to 1, by the workers' gradients."""
    draw, order = torch.Generator().manual_seed(seed), random.Random(seed)
    h = torch.linspace(0.2, 1.0, SIZE, dtype=torch.float64)

    def normal() -> torch.Tensor:
        return torch.randn(SIZE, dtype=torch.float64, generator=draw)

    x = normal()
    before = x
    held = [(0, h * x + noise * normal()) for _ in range(workers)]
    for one in chosen.values():
        one.record(0, one.sample(x), 0.0)
    for t in range(updates):
        who = order.randrange(workers) if random_order else t % workers
        version, g = held[who]
        x, before = x + mu * (x - before) - rate * g, x
        held[who] = (t + 1, h * x + noise * normal())
        for one in chosen.values():
            one.record(t + 1, one.sample(x), rate, mu)
        yield {name: one.measure(version, one.sample(g)) for name, one in chosen.items()}


def spread(
    workers: int, noise: float, mu: float = 0.0, updates: int = 1500, random_order: bool = True, rate: float = 0.05
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation, over all updates but the first 300, of what each estimator says."""
    rows = list(measured(estimators(), workers, noise, mu, updates, random_order, rate))[300:]
    answer = {}
    for name in rows[0]:
        values = torch.tensor([row[name] for row in rows if row[name] is not None], dtype=torch.float64)
        answer[name] = (float(values.mean()), float(values.std()))
    return answer


def theory(workers: int, mu: float) -> float:
    lag = workers - 1 + mu / (1 - mu)
    return lag / (1 + lag)


def cost(size: int = 2048, updates: int = 300) -> dict[str, float]:
    """Microseconds an update, record and measure together, float32, staleness 3."""
    answer = {}
    for name, one in estimators(size).items():
        x, g = torch.zeros(size), torch.randn(size, generator=torch.Generator().manual_seed(2))
        one.record(0, one.sample(x), 0.0)
        start = time.perf_counter()
        for t in range(updates):
            one.record(t + 1, one.sample(x.sub_(g, alpha=0.01)), 0.01)
            one.measure(max(0, t - 3), one.sample(g))
        answer[name] = 1e6 * (time.perf_counter() - start) / updates
    return answer


def table() -> Iterator[str]:
    yield "order        M    μ    αh≤  noise  μ_T     " + "".join(f"{name:>18}" for name in estimators())
    for kind, workers, mu, noise in product((True, False), (1, 4, 16), (-0.5, 0.0, 0.5), (0.0, 1.0, 10.0)):
        for rate in (0.01, 0.05):
            found = spread(workers, noise, mu, random_order=kind, rate=rate)
            words = "".join(f"{mean - theory(workers, mu):+10.3f} ±{std:6.3f}" for mean, std in found.values())
            order = "memoryless" if kind else "round-robin"
            yield f"{order:11} {workers:2} {mu:+.1f} {rate:6.2f} {noise:6.1f} {theory(workers, mu):+.3f}  {words}"
    yield "µs an update: " + ", ".join(f"{name} {value:.0f}" for name, value in cost().items())


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in table():
        print(line, flush=True)
