"""The stability guard: a learning rate that late gradients can bear, by theory and by the curvature along the way."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuner.averages import Average
from tuner.region import largest_stable_step, staleness_factor
from tuner.sample import Sample
from tuner.target import State

MEMORY = 0.99  # decay of the sums behind the curvature, and of the mean staleness
PART = 0.7  # of the largest stable αh that is used; by measurement (docs/estimators.md)
SPEED = 0.05  # of the factor's logarithm, for αh far off
FASTEST = 0.01  # most that it moves in one update, in either direction alike, or noise would pull it down
FRESH = 0.5  # mean staleness below which a gradient may be compared with one that made its own version


class Guard:
    """A factor in (0, 1] on the target's α, from two things the target does not know.

    Staleness: `staleness_factor(μ*, τ̄)`, what the fastest αh of a delay τ̄ is in parts of the one without delay.

    Curvature: for gradients g_v and g_u that came one after the other, d = x_v − x_u,

        αh = α Σ ⟨g_v − g_u, d⟩ / Σ ‖d‖²,

    the sums fading by 0.99, over K sampled coordinates. The factor's logarithm moves by 0.05 (1 − αh/(0.7 a)), at
    most by 0.01, a the `largest_stable_step` of μ and τ̄, and never above 0. Minibatch noise has no part in it, for d
    was made before either gradient was applied; pairs where g_u helped to make x_v are left out when gradients are
    late. When none is, every pair is such a pair, and noise adds 1 − μ² at most: less than 0.7 a = 1.4 (1 + μ). For a
    rule with a preconditioner g is the preconditioned gradient. αh does not depend on the scale of the loss.

    size, sample, seed: as for `Sample`. history: versions kept, 4 K history bytes.
    """

    def __init__(self, size: int, *, sample: int, history: int, seed: int) -> None:
        self._sample, self._history = Sample(size, sample, seed), history
        self._rows = torch.empty(0)  # [history, K], written over in place
        self._versions = [-1] * history
        self._newest, self._rate, self._momentum = -1, 0.0, 0.0
        self._last_version, self._last = -1, torch.empty(0)
        self._product, self._square, self._staleness = Average(MEMORY), Average(MEMORY), Average(MEMORY)
        self.curvature_factor = 1.0

    def factor(self, momentum: float) -> float:
        """What to multiply the α of a target by whose momentum is μ*."""
        return self.curvature_factor * staleness_factor(momentum, self._staleness.value)

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
        allowed = PART * largest_stable_step(self._momentum, staleness)
        change = SPEED * (1.0 - self.step / allowed)
        self.curvature_factor = min(1.0, self.curvature_factor * math.exp(min(max(change, -FASTEST), FASTEST)))

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
            "curvature_factor": self.curvature_factor,
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
        self.curvature_factor = float(state["curvature_factor"])
