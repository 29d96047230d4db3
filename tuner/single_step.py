"""The single step of YellowFin: momentum and learning rate from C, D, h_min and h_max, in pure floats.

Source: J. Zhang and I. Mitliagkas, "YellowFin and the art of momentum tuning" (2019), the SingleStep problem.
"""

from __future__ import annotations

import math


def cubic(p: float) -> tuple[float, float]:
    """Solve `y³ + p y + p = 0` for its one real root y in (−1, 0); returns `(x, z) = (1 + y, −y)`, x = √μ.

    Both halves are given because either may be too near 1 to recover the other by subtraction. With x and z the
    equation reads `p x = z³`, and Newton's method runs on whichever of the two is the smaller:

        p ≥ 1:  f(x) = p x − (1 − x)³, concave and increasing, from x = 0 upwards without overshooting;
        p < 1:  f(z) = z³ + p z − p,   convex and increasing, from z = ∛p downwards without overshooting.

    So no digit is lost to cancellation anywhere in 0 ≤ p ≤ ∞ (the closed form loses all of them above p ≈ 1e10).
    Raises ValueError for a negative p or NaN.
    """
    if not p >= 0.0:
        raise ValueError(f"p: expected a number of at least 0, got {p!r}")
    if math.isinf(p):
        return 0.0, 1.0
    if p >= 1.0:
        x = 0.0
        for _ in range(6):  # 6 steps reach the last bit at p = 1, the slowest case
            z = 1.0 - x
            x -= (p * x - z * z * z) / (p + 3.0 * z * z)
        return x, 1.0 - x
    z = math.cbrt(p)
    for _ in range(6):
        # z³ is taken out of a factor so that p as small as 1e-300 neither underflows nor divides 0 by 0
        z -= z * (1.0 - (p / z) * (1.0 - z) / (z * z)) / (3.0 + p / (z * z)) if z > 0.0 else 0.0
    return 1.0 - z, z


def single_step(C: float, D: float, h_min: float, h_max: float) -> tuple[float, float]:
    """Minimise `μ D² + α² C` subject to the robust region; returns `(α, μ)`.

    `√μ = max(x, (√κ − 1)/(√κ + 1))` with κ = h_max/h_min and x the root of the cubic with `p = D² h_min² / (2C)`,
    and `α = (1 − √μ)² / h_min`. 1 − √μ is carried separately, so that α is exact also where √μ rounds to 1.

    C: gradient variance (above 0). D: distance to the optimum (at least 0). h_min, h_max: curvature range
    (0 < h_min ≤ h_max). Raises ValueError when an argument is outside that.
    """
    if not (C > 0.0 and D >= 0.0 and 0.0 < h_min <= h_max):
        raise ValueError(f"expected C > 0, D ≥ 0, 0 < h_min ≤ h_max, got {C=!r}, {D=!r}, {h_min=!r}, {h_max=!r}")
    ratio = D * (h_min / math.sqrt(2.0 * C))
    x, z = cubic(ratio * ratio)
    # tanh(log κ / 4) is (√κ − 1)/(√κ + 1) without the subtraction
    log_root = 0.5 * (math.log(h_max) - math.log(h_min) if h_max > 2.0 * h_min else math.log1p((h_max - h_min) / h_min))
    x = max(x, math.tanh(0.5 * log_root))
    z = min(z, 2.0 / (math.exp(min(log_root, 700.0)) + 1.0))
    return z / h_min * z, x * x
