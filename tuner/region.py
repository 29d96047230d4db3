"""The robust region of momentum when gradients are late: which αh is stable, which is fastest, and how fast.

Derived, for one direction of curvature h, with a = αh. A constant delay τ (round-robin: τ = M − 1) is the recursion

    x_{t+1} = x_t + μ (x_t − x_{t−1}) − a x_{t−τ},   of which x_t = zᵗ asks   z^{τ−1} (z − 1)(z − μ) + a = 0.

It loses stability where a root meets the unit circle. There z = e^{iθ}, and a is real and positive where the phase
agrees: (τ − ½) θ + φ(θ) = π/2 + 2πk, φ(θ) = arg(e^{iθ} − μ); then a = |z − 1| |z − μ|. The left side rises with θ, so
each k ≤ τ/2 has one θ. As a function of θ, a rises and then, for μ < 0 only, may fall again, so the least of these a
belongs to the first k or to the last.

Memoryless staleness (each update is by one of M workers, drawn at random; geometric, of mean M − 1) is linear only on
average. Let w_t be the mean of what the workers hold, ρ = 1 − 1/M: w_{t+1} = ρ w_t + (1 − ρ) x_{t+1}, and E x_t obeys

    x_{t+1} = x_t + μ (x_t − x_{t−1}) − a w_t,   that is   (z − 1)(z − μ)(z − ρ) + a (1 − ρ) z² = 0:

staleness acts as a second momentum ρ, and divides the step by M. Its mean square obeys seven equations, which lose
stability sooner, much sooner for many workers: that limit, not the one of the mean, is what a run can bear.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Order = Literal["constant", "memoryless"]
"""How gradients are late: all by τ updates, or geometrically with mean τ."""

_HALVINGS = 54  # of an interval: to the last bit of a double, or nearly
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def largest_stable_step(momentum: float, staleness: float, order: Order = "constant") -> float:
    """The αh below which the iteration converges.

    momentum: μ in (−1, 1). staleness: τ ≥ 0. For a constant delay that is whole, exact; 2 sin(π/(2(2τ + 1))) for
    μ = 0, 2(1 + μ) for τ = 0. For a mean delay that is not whole: the lesser of the a at the first θ and at π, which
    no θ beyond the first goes below. Memoryless: of the mean square, and at most `mean_stable_step`. Raises ValueError
    outside the ranges.
    """
    _check(momentum, staleness)
    if order == "memoryless":
        return _mean_square_limit(momentum, staleness)
    if not float(staleness).is_integer():
        return min(_crossing(momentum, staleness, 0), 2.0 * (1.0 + momentum))
    return min(_crossing(momentum, staleness, k) for k in {0, int(staleness) // 2})


def stable_bound(momentum: float, staleness: float) -> float:
    """An αh that is never above `largest_stable_step` of the same constant delay, in closed form, for any real τ.

    φ(θ) is at most θ/(1 − μ) for μ ≥ 0 and at most θ for μ < 0, so no root meets the circle below

        θ₀ = min(π, (π/2) / (τ + ½ + max(μ, 0)/(1 − μ))):

    a quarter of a turn divided by the mean lag of the system and half a step. The bound is the lesser of
    |e^{iθ} − 1| |e^{iθ} − μ| at θ₀ and at π. Exact for μ = 0, never rises with τ, and loose (a tenth and less) where
    μ/(1 − μ) is large beside τ.
    """
    _check(momentum, staleness)
    lag = staleness + 0.5 + max(momentum, 0.0) / (1.0 - momentum)
    return min(_on_circle(momentum, min(math.pi, 0.5 * math.pi / lag)), 2.0 * (1.0 + momentum))


def mean_stable_step(momentum: float, staleness: float) -> float:
    """The αh below which E x_t converges under memoryless staleness of that mean, by the criterion of Jury.

    `min(2(1 + μ)(1 + ρ)/(1 − ρ), (1 − μρ)(1 − μ)/(μρ))`, the second for μρ > 0 only. Single runs may diverge below.
    """
    _check(momentum, staleness)
    rho = staleness / (1.0 + staleness)
    flip = 2.0 * (1.0 + momentum) * (1.0 + 2.0 * staleness)
    both = momentum * rho
    return min(flip, (1.0 - both) * (1.0 - momentum) / both) if both > 0.0 else flip


def best_step(momentum: float, staleness: float, order: Order = "constant") -> float:
    """The αh of the least `spectral_radius`.

    Where the two largest roots are real and meet: at z with (τ + 1) z² − τ (1 + μ) z + (τ − 1) μ = 0 for a constant
    delay, z³ − (μ + ρ + μρ) z + 2μρ = 0 for a memoryless one. That is (1 − √μ)² without staleness, and
    τ^τ/(τ + 1)^{τ+1} for μ = 0 and constant τ. For μ < 0 and a constant delay another root may be the larger one
    there, and without staleness none meet; then by search. For μ < 0 and memoryless staleness the mean has a lower
    minimum at steps a hundred times as long, which no single run survives; it is not the answer.
    """
    _check(momentum, staleness)
    found = (_double_constant if order == "constant" else _double_memoryless)(momentum, staleness)
    if found is not None and (momentum >= 0.0 or order == "memoryless"):
        return found[0]
    if found is not None and spectral_radius(momentum, found[0], staleness, order) <= found[1] + 1e-6:
        return found[0]
    return _searched(momentum, staleness, order)


def spectral_radius(momentum: float, step: float, staleness: float, order: Order = "constant") -> float:
    """Factor a step by which x_t (memoryless: E x_t) shrinks in the long run, at αh = `step`.

    The largest |eigenvalue| of a companion matrix, in double. A constant delay is rounded up to a whole number.
    """
    _check(momentum, staleness)
    if order == "memoryless":
        share = 1.0 / (1.0 + staleness)
        rho = 1.0 - share
        row = [1 + momentum + rho - step * share, -(momentum + rho + momentum * rho), momentum * rho]
    else:
        delay = math.ceil(staleness)
        row = [1.0 + momentum, -momentum, *[0.0] * (delay - 1)]
        row[delay] -= step
    companion = torch.diag(torch.ones(len(row) - 1, dtype=torch.float64), -1)
    companion[0] = torch.tensor(row, dtype=torch.float64)
    return _largest_eigenvalue(companion)


def mean_square_radius(momentum: float, step: float, staleness: float) -> float:
    """Factor a step by which E x_t² shrinks under memoryless staleness of M = 1 + `staleness` workers.

    Of the moments x², xx′, x′², xw, x′w, w², ww′: x′ is the version before, w and w′ what two workers hold. A push by
    worker k makes x⁺ = (1 + μ) x − μ x′ − a w_k and w_k⁺ = x⁺, and all workers are alike. M is rounded up to 1 or 2.
    """
    _check(momentum, staleness)
    m, a, workers = momentum, step, max(1.0 + staleness, 2.0 if staleness else 1.0)
    pushed, either = 1.0 / workers, min(1.0, 2.0 / workers)
    square = torch.tensor(
        [(1 + m) ** 2, -2 * m * (1 + m), m * m, -2 * a * (1 + m), 2 * a * m, a * a, 0.0], dtype=torch.float64
    )
    beside = torch.tensor([1 + m, -m, 0.0, -a, 0.0, 0.0, 0.0], dtype=torch.float64)
    other = torch.tensor([0.0, 0.0, 0.0, 1 + m, -m, 0.0, -a], dtype=torch.float64)
    one = torch.eye(7, dtype=torch.float64)
    rest = 1.0 - pushed
    rows = [
        square,
        beside,
        one[0],
        pushed * square + rest * other,
        pushed * beside + rest * one[3],
        pushed * square + rest * one[5],
        either * other + (1.0 - either) * one[6],
    ]
    used = 7 if staleness else 6  # one worker has no other
    return _largest_eigenvalue(torch.stack(rows)[:used, :used])


def _check(momentum: float, staleness: float) -> None:
    if not (-1.0 < momentum < 1.0 and 0.0 <= staleness < math.inf):
        raise ValueError(f"expected momentum in (-1, 1) and staleness ≥ 0, got {momentum!r} and {staleness!r}")


def _on_circle(momentum: float, theta: float) -> float:
    """|z − 1| |z − μ| at z = e^{iθ}, by half angles: no digit is lost where θ is small and μ near 1."""
    half = math.sin(0.5 * theta)
    if momentum >= 0.0:
        return 2.0 * half * math.hypot(1.0 - momentum, 2.0 * math.sqrt(momentum) * half)
    return 2.0 * half * math.hypot(1.0 + momentum, 2.0 * math.sqrt(-momentum) * math.cos(0.5 * theta))


def _crossing(momentum: float, delay: float, k: int) -> float:
    """αh at which a root meets the unit circle for the k-th time, by bisection of the phase."""
    low, high = 0.0, math.pi
    for _ in range(_HALVINGS):
        theta = 0.5 * (low + high)
        phase = (delay - 0.5) * theta + math.atan2(math.sin(theta), math.cos(theta) - momentum)
        low, high = (theta, high) if phase < (0.5 + 2.0 * k) * math.pi else (low, theta)
    return _on_circle(momentum, high)


def _double_constant(momentum: float, delay: float) -> tuple[float, float] | None:
    """αh and z where two positive roots meet; None where none do."""
    under = (delay * (1.0 - momentum)) ** 2 + 4.0 * momentum
    if under < 0.0:
        return None
    z = (delay * (1.0 + momentum) + math.sqrt(under)) / (2.0 * (delay + 1.0))
    return (z ** (delay - 1.0) * (1.0 - z) * (z - momentum), z) if z > 0.0 else (1.0, 0.0)


def _double_memoryless(momentum: float, staleness: float) -> tuple[float, float] | None:
    """αh and z where two positive roots meet, by Newton's method down from z = 1; None where none do."""
    rho = staleness / (1.0 + staleness)
    linear, both = momentum + rho + momentum * rho, momentum * rho
    z = 1.0
    for _ in range(200):
        slope = 3.0 * z * z - linear
        if slope <= 0.0 or z <= 0.0:
            break
        following = z - (z * (z * z - linear) + 2.0 * both) / slope
        if following >= z:
            break
        z = following
    if not (z > max(rho, momentum, 0.0) and abs(z * (z * z - linear) + 2.0 * both) < 1e-9):
        return None
    return (1.0 - z) * (z - momentum) * (z - rho) * (1.0 + staleness) / (z * z), z


@lru_cache(maxsize=256)
def _searched(momentum: float, staleness: float, order: Order) -> float:
    """The αh of the least spectral radius, by golden section."""
    low = 0.0
    high = mean_stable_step(momentum, staleness)
    if order == "constant":
        high = largest_stable_step(momentum, math.ceil(staleness))

    def radius(step: float) -> float:
        return spectral_radius(momentum, step, staleness, order)

    left, right = high - _GOLDEN * high, _GOLDEN * high
    at_left, at_right = radius(left), radius(right)
    while high - low > 1e-7 * high:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = radius(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = radius(right)
    return 0.5 * (low + high)


@lru_cache(maxsize=1024)
def _mean_square_limit(momentum: float, staleness: float) -> float:
    return _bisected(lambda step: mean_square_radius(momentum, step, staleness), mean_stable_step(momentum, staleness))


def _bisected(radius: Callable[[float], float], high: float) -> float:
    """The step below which `radius` is under 1, between 0 and `high`."""
    low = 0.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if radius(middle) < 1.0 else (low, middle)
    return low


def _largest_eigenvalue(matrix: Tensor) -> float:
    return float(torch.linalg.eigvals(matrix).abs().max())
