"""The stability guard: a learning rate that late gradients can bear, by theory and by the curvature along the way."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuner.averages import Average
from tuner.region import best_step, largest_stable_step
from tuner.robust import GainLimit
from tuner.sample import Sample
from tuner.target import Decision, State

MEMORY = 0.99  # decay of the sums behind the curvature, and of the mean staleness
PART = 0.7  # of the largest stable αh that is used; by measurement (docs/estimators.md)
EASY = 0.25  # of that: below it the gain may rise above what was tried
SPEED = 0.05  # of a factor's logarithm, for αh far off
FASTEST = 0.01  # most that it moves in one update, in either direction alike, or noise would pull it down
FREE = 200  # updates before the gain is held to what was tried
FRESH = 0.5  # mean staleness below which a gradient may be compared with one that made its own version
MOST = 100.0  # largest ease


class Guard:
    """Holds α and μ* of a target to what gradients that are late can bear, from three things it does not know.

    Staleness: the αh that the target takes its α for gives way to the fastest one, `best_step(μ*, τ̄)`, if that is less.

    What was tried: the gain that results stays within a `GainLimit`.

    Curvature: for gradients g_v and g_u that came one after the other, d = x_v − x_u,

        αh = α Σ ⟨g_v − g_u, d⟩ / Σ ‖d‖²,

    the sums fading by 0.99, over K sampled coordinates. Let r be αh/(0.7 a), a the `largest_stable_step` of μ and τ̄.
    log `caution` moves by 0.05 (1 − r) and never above 0; log `ease` by 0.05 (1 − 4r) and never below 0; either at most
    by 0.01. α is multiplied by both, and never above the target's own.

    Minibatch noise has no part in αh, for d was made before either gradient was applied; pairs where g_u helped to make
    x_v are left out when gradients are late. When none is, every pair is such a pair, and noise adds 1 − μ² at most:
    less than 0.7 a = 1.4 (1 + μ). For a rule with a preconditioner g is the preconditioned gradient. The scale of the
    loss makes no difference.

    size, sample, seed: as for `Sample`. history: versions kept, 4 K history bytes.
    """

    def __init__(self, size: int, *, sample: int | Tensor, history: int, seed: int) -> None:
        self._sample, self._history = Sample(size, sample, seed), history
        self._rows = torch.empty(0)  # [history, K], written over in place
        self._versions = [-1] * history
        self._newest, self._rate, self._momentum = -1, 0.0, 0.0
        self._last_version, self._last = -1, torch.empty(0)
        self._product, self._square, self._staleness = Average(MEMORY), Average(MEMORY), Average(MEMORY)
        self._limit = GainLimit(FREE)
        self.caution = self.ease = 1.0

    def hold(self, decision: Decision) -> tuple[float, float]:
        """α and μ* in place of the target's; without `Decision.step` staleness is left out."""
        rate, momentum, staleness = decision.learning_rate, decision.momentum, self._staleness.value
        if decision.step and staleness:
            rate *= min(1.0, best_step(min(max(momentum, 0.0), 0.9999), staleness) / decision.step)
        rate, momentum = self._limit.limit(rate, momentum)
        return min(rate * self.caution * self.ease, decision.learning_rate), momentum

    @property
    def step(self) -> float:
        """αh along the trajectory, as last measured; 0 before."""
        return self._rate * self._product.value / self._square.value if self._square.value else 0.0

    def sample(self, vector: Tensor) -> Tensor:
        """The sampled coordinates of a vector [N], as a new tensor [K]."""
        return self._sample.take(vector)

    def record(self, version: int, sampled: Tensor, learning_rate: float, momentum: float) -> None:
        """Remember a version: its sampled coordinates [K] (copied), and the α and μ of the update that made it."""
        if not self._rows.numel():
            self._rows = sampled.new_zeros(self._history, sampled.numel())
        self._rows[version % self._history] = sampled
        self._versions[version % self._history] = version
        self._newest, self._rate, self._momentum = version, learning_rate, momentum

    def observe(self, version: int, applied: Tensor) -> None:
        """Take the gradient [K] that made the newest version and was computed at `version`, as it was applied."""
        staleness = self._staleness.update(float(self._newest - 1 - version))
        before, last = self._last_version, self._last
        self._last_version, self._last = version, applied.clone()
        here, there = self._row(version), self._row(before)
        if here is None or there is None or (version >= self._newest - 1 and staleness > FRESH):
            return
        moved = here - there
        square, product = float(moved.dot(moved)), float((applied - last).dot(moved))
        if not (0.0 < square < math.inf and math.isfinite(product)):
            return
        self._product.update(product)
        self._square.update(square)
        part = self.step / (PART * largest_stable_step(self._momentum, staleness))
        self.caution = min(1.0, self.caution * _moved(part))
        if self._newest > FREE:
            self.ease = min(max(1.0, self.ease * _moved(part / EASY)), MOST)

    def _row(self, version: int) -> Tensor | None:
        slot = version % self._history
        return self._rows[slot] if version >= 0 and self._versions[slot] == version else None

    def state_dict(self) -> State:
        """The remembered versions, oldest first; the last gradient; the sums and the factor."""
        known = sorted(v for v in self._versions if v >= 0)
        return {
            "index": self._sample.saved(),
            "versions": known,
            "rows": self._rows[[v % self._history for v in known]] if known else None,
            "rate": self._rate,
            "momentum": self._momentum,
            "last_version": self._last_version,
            "last": self._last.clone() if self._last.numel() else None,
            "product": self._product.state_dict(),
            "square": self._square.state_dict(),
            "staleness": self._staleness.state_dict(),
            "limit": self._limit.state_dict(),
            "caution": self.caution,
            "ease": self.ease,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer. Raises ValueError when the sample has another size."""
        self._sample.restore(state["index"])
        self._rows, self._versions, self._newest = torch.empty(0), [-1] * self._history, -1
        for position, version in enumerate(state["versions"]):
            self.record(version, state["rows"][position], 0.0, 0.0)
        self._rate, self._momentum = float(state["rate"]), float(state["momentum"])
        self._last_version = int(state["last_version"])
        self._last = torch.empty(0) if state["last"] is None else state["last"].clone()
        self._product.load_state_dict(state["product"])
        self._square.load_state_dict(state["square"])
        self._staleness.load_state_dict(state["staleness"])
        self._limit.load_state_dict(state["limit"])
        self.caution, self.ease = float(state["caution"]), float(state["ease"])


def _moved(part: float) -> float:
    """By what a factor is multiplied when αh is that part of what it should be."""
    return math.exp(min(max(SPEED * (1.0 - part), -FASTEST), FASTEST))
