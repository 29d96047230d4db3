"""A slow, literal twin of the YellowFin target in float64: whole vectors, the explicit EMA vector, 60-digit cubic."""

from __future__ import annotations

import math

import mpmath
import numpy as np
from numpy.typing import NDArray


def root(p: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """x = √μ and 1 − x by Vieta's substitution, with digits enough to lose most of them."""
    with mpmath.workdps(60 + 3 * int(abs(math.log10(p)))):
        p = mpmath.mpf(p)
        w3 = (-mpmath.sqrt(p**2 + 4 * p**3 / 27) - p) / 2
        w = -mpmath.cbrt(-w3)
        y = w - p / (3 * w)
        return y + 1, -y


class Reference:
    """One call a gradient; returns α and μ*."""

    def __init__(self, size: int, beta: float = 0.999, window: int = 20, smooth: bool = True) -> None:
        self.beta, self.window, self.smooth = beta, window, smooth
        self.t = 0
        self.h: list[float] = []
        self.log_min = self.log_max = 0.0
        self.e = np.zeros(size)
        self.e_square = self.e_norm = self.e_ratio = self.e_alpha = self.e_mu = 0.0
        self.h_max = math.nan

    def mix(self, average: float, value: float) -> float:
        return self.beta * average + (1 - self.beta) * value

    def step(self, gradient: NDArray[np.float32]) -> tuple[float, float]:
        g = gradient.astype(np.float64)
        norm = math.sqrt(float(np.sum(g * g)))
        h = norm * norm
        if self.t > 0:
            s = min(1.0, math.sqrt(self.h_max) / norm)
            h = min(h, 100 * self.h_max)
            g, norm = s * g, s * norm
        self.t += 1
        debias = 1 - self.beta**self.t
        self.h.append(max(h, 1e-30))
        last = self.h[-self.window :]
        self.log_min = self.mix(self.log_min, math.log(min(last)))
        self.log_max = self.mix(self.log_max, math.log(max(last)))
        h_min, self.h_max = math.exp(self.log_min / debias), math.exp(self.log_max / debias)
        self.e = self.beta * self.e + (1 - self.beta) * g
        self.e_square = self.mix(self.e_square, norm**2)
        self.e_norm = self.mix(self.e_norm, norm)
        square = self.e_square / debias
        C = max(square - float(np.sum((self.e / debias) ** 2)), 1e-6 * square)
        self.e_ratio = self.mix(self.e_ratio, self.e_norm / self.e_square)
        D = self.e_ratio / debias
        alpha, mu = self.single_step(C, D, h_min, self.h_max)
        if self.smooth:
            self.e_alpha, self.e_mu = self.mix(self.e_alpha, alpha), self.mix(self.e_mu, mu)
            alpha, mu = self.e_alpha / debias, self.e_mu / debias
        return min(alpha, alpha * self.t / (10 * self.window)), mu

    def single_step(self, C: float, D: float, h_min: float, h_max: float) -> tuple[float, float]:
        x, rest = root(D**2 * h_min**2 / (2 * C))
        k = math.sqrt(h_max / h_min)
        if (k - 1) / (k + 1) > x:
            x, rest = mpmath.mpf((k - 1) / (k + 1)), mpmath.mpf(2 / (k + 1))
        return float(rest**2 / h_min), float(x**2)
