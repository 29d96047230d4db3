"""Total momentum and effective step together, by a regression whose instruments no minibatch noise can reach.

Derived: let M workers without order (memoryless staleness) apply a_v at version v, and let g_v be the gradient computed
there. A worker's push is replaced by one at the newest version, so the mean of what is in flight obeys

    E[a_v | past] = ρ E[a_{v−1} | past] + s E[g_v | past],  ρ = 1 − 1/M,  s = 1/M,

with "past" what was known when version v − 1 had been made: for any curvature, noise, α and μ. For μ = 0 these are
the displacements' momentum 1 − 1/M and step α/M of Mitliagkas et al. (2016).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuner.sample import Sample
from tuner.target import State

MEMORY = 0.995  # decay of the sums: the last 200 versions or so
LAGS = (1, 2, 4, 8, 16, 32)  # how far back the instruments reach
NEEDED = 20  # fewest gradients in the sums for an answer
DELAY_ONLY = 0.1  # weight of ρ + s = 1, relative to the data's
TINY = 1e-9  # of the trace: keeps the inverse of instruments that lie along one another


def moments(here: Tensor, older: Tensor, previous: Tensor, fresh: Tensor, applied: Tensor) -> Tensor | None:
    """Zᵀ [a_{v−1}, g_v, a_v − g_v, Z] of one version, float64 [J, 3 + J] on the host; Z are the J instruments.

    here: x_{v−1} [K]. older: versions before it [J, K], the oldest last. previous, fresh, applied: a_{v−1}, g_v, a_v.
    None without motion, or when the answer is not finite.
    """
    columns = torch.empty(3 + len(older), here.numel(), dtype=torch.float64, device=here.device)
    columns[0], columns[1], z = previous, fresh, columns[3:]
    torch.sub(applied, fresh, out=columns[2])
    torch.sub(here, older, out=z)
    found = (z @ columns.T).cpu()
    lengths = found[:, 3:].diagonal().sqrt()
    found /= lengths[:, None] * torch.cat((lengths[-1:].expand(3), lengths))
    return found if math.isfinite(float(found.sum())) else None


def solve(sums: Tensor) -> tuple[float, float] | None:
    """ρ and s from summed `moments`, found as what they differ from 0 and 1; None when nothing moved.

    Without staleness a_v − g_v is 0, and then the answer is 0 and 1 to the last bit.
    """
    regressors, among = sums[:, :3], sums[:, 3:]
    ridge = TINY * float(among.trace()) * torch.eye(len(among), dtype=torch.float64)
    normal = (regressors[:, :2].T @ torch.linalg.solve(among + ridge, regressors)).tolist()
    (aa, ag, ar), (_, gg, gr) = normal
    trace = aa + gg
    aa, gg, ag = aa + (DELAY_ONLY + TINY) * trace, gg + (DELAY_ONLY + TINY) * trace, ag + DELAY_ONLY * trace
    determinant = aa * gg - ag * ag
    if not determinant > 0.0:
        return None
    return (gg * ar - ag * gr) / determinant, 1.0 + (aa * gr - ag * ar) / determinant


class Regression:
    """Two-stage least squares of a_v on a_{v−1} and g_v over K coordinates and the last versions, then the lag.

        L = ρ/(1 − ρ) + μ/(1 − μ),  μ̂_T = L/(1 + L),  effective step s (1 − μ̂_T) / ((1 − ρ)(1 − μ)) in units of α.

    In terms of the trajectory α a_v = μ (x_v − x_{v−1}) − (x_{v+1} − x_v): the known μ is taken out before and put back
    after, so that a loop which moves μ is no error, and neither is a changing α. Plain least squares fails: both
    regressors hold noise, and a_v holds the noise of g_v whenever that one was applied at once. Instruments are older
    displacements x_{v−1} − x_{v−1−q}: made before that noise was drawn, and yet they move the gradient. Versions weigh
    alike: every instrument has length 1, and gradients are divided by the length of the longest displacement.

    A delay moves gradients and loses none, so ρ + s = 1 is preferred, weakly, where the data tell ρ and s apart badly.
    It fails, towards no staleness, where the instruments are weak: short steps in much noise (16 memoryless workers,
    αh ≤ 0.01, noise above signal: 0.15 too low for μ = 0, 0.4 for μ = −0.5; αh ≤ 0.05: within 0.02). Round-robin
    staleness has no such ρ; its best fit is some 0.05 high, 0.18 for μ = −0.5 and 4 workers. Per-gradient factors (α/τ,
    clipping that switches on and off) count as lost gradient and lower s. Where gradients are linear `Lag` knows the
    same number free of noise: this one asks the trajectory whether it is true (tests/tuner/bias_table.py).

    size, sample, seed: as for `Sample`. history: versions kept, 8 K history bytes; staleness up to history − 4 is seen.
    """

    def __init__(self, size: int, *, sample: int | Tensor, history: int, seed: int) -> None:
        self._sample, self._history = Sample(size, sample, seed), history
        self._rows = torch.empty(0)  # [2, history, K]: versions, and what was applied to them; written over in place
        self._versions = [-1] * history
        self._applied = [-1] * history
        self._newest, self._momentum = -1, 0.0
        self._sums = torch.zeros(len(LAGS), 3 + len(LAGS), dtype=torch.float64)
        self._seen = 0
        self.share = 1.0
        self.staleness_momentum = 0.0

    @property
    def count(self) -> int:
        """K, the number of coordinates sampled."""
        return self._sample.count

    @property
    def total_momentum(self) -> float:
        """μ̂_T with the newest update's μ and the last fit."""
        return 1.0 - 1.0 / self._lag_and_one()

    @property
    def effective_step(self) -> float:
        """The step of the synchronous system with that momentum and the same gain, in units of α."""
        return self.share / ((1.0 - self.staleness_momentum) * (1.0 - self._momentum) * self._lag_and_one())

    def _lag_and_one(self) -> float:
        return 1.0 / (1.0 - self.staleness_momentum) + self._momentum / (1.0 - self._momentum)

    def sample(self, vector: Tensor) -> Tensor:
        """The sampled coordinates of a vector [N], as a new tensor [K]."""
        return self._sample.take(vector)

    def record(self, version: int, sampled: Tensor, learning_rate: float, momentum: float = 0.0) -> None:
        """Remember a version: its sampled coordinates [K] (copied) and the μ of the update that made it."""
        if not self._rows.numel():
            self._rows = sampled.new_zeros(2, self._history, sampled.numel())
        self._rows[0, version % self._history] = sampled
        self._versions[version % self._history] = version
        self._newest, self._momentum = version, momentum

    def measure(self, version: int, applied: Tensor) -> float | None:
        """μ̂_T after the update by the gradient [K] computed at `version`.

        None when that version is 0 or 1, too old or without motion before it, and for the first gradients.
        """
        slot = (self._newest - 1) % self._history
        self._rows[1, slot] = applied
        self._applied[slot] = self._newest - 1
        found = self._moments(version, applied)
        if found is None:
            return None
        self._sums.mul_(MEMORY).add_(found, alpha=1.0 - MEMORY)
        self._seen += 1
        fit = solve(self._sums) if self._seen >= NEEDED else None
        if fit is None:
            return None
        momentum, self.share = fit
        self.staleness_momentum = min(max(momentum, 0.0), 1.0 - 1.0 / self._history)
        return self.total_momentum

    def _moments(self, version: int, applied: Tensor) -> Tensor | None:
        oldest = max(0, self._newest - self._history + 1)
        if version - 1 <= oldest or not (self._knows(version) and self._knows(version - 1)):
            return None
        x, a = self._rows[0], self._rows[1]
        older = x[[max(oldest, version - 1 - lag) % self._history for lag in LAGS]]
        here, before = version % self._history, (version - 1) % self._history
        return moments(x[before], older, a[before], applied, a[here])

    def _knows(self, version: int) -> bool:
        """Whether the version and what was applied to it are remembered."""
        return self.holds(version) and self._applied[version % self._history] == version

    def holds(self, version: int) -> bool:
        """Whether that version is remembered."""
        return version >= 0 and self._versions[version % self._history] == version

    def state_dict(self) -> State:
        """The sums and the last fit; the remembered versions, oldest first, and what was applied to each."""
        known = sorted(v for v in self._versions if v >= 0)
        return {
            "index": self._sample.saved(),
            "versions": known,
            "applied": [v for v in known if self._knows(v)],
            "rows": self._rows[:, [v % self._history for v in known]] if known else None,
            "momentum": self._momentum,
            "sums": self._sums.clone(),
            "seen": self._seen,
            "share": self.share,
            "staleness_momentum": self.staleness_momentum,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer; versions beyond `history` are dropped, oldest first.

        Raises ValueError when the sample has another size.
        """
        self._sample.restore(state["index"])
        self._rows = torch.empty(0)
        self._versions, self._applied, self._newest = [-1] * self._history, [-1] * self._history, -1
        for position, version in enumerate(state["versions"]):
            self.record(version, state["rows"][0, position], 0.0)
            self._rows[1, version % self._history] = state["rows"][1, position]
            self._applied[version % self._history] = version if version in state["applied"] else -1
        self._momentum = float(state["momentum"])
        self._sums = state["sums"].clone()
        self._seen = int(state["seen"])
        self.share, self.staleness_momentum = float(state["share"]), float(state["staleness_momentum"])
