"""Total momentum, measured while training: a median over a fixed sample of coordinates of the trajectory.

Source: Zhang and Mitliagkas (2019), closed-loop YellowFin; the identity in `TotalMomentum` is worked out here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuner.sample import Sample
from tuner.target import State

ULPS = 8.0  # a displacement no longer than this many units in the last place of x is mostly rounding
LEAST = -0.5  # μ in 1 + μ − μ² is at least this; the sum is 0 at −0.618
NEEDED = 16  # fewest coordinates a median is taken over (or half the sample, where that is smaller)


class TotalMomentum:
    """`μ̂_T = median_i ( (x_{v+1} − x_v + α_v g_v) / (x_v − x_{v−1}) )_i`, for g_v computed at version v.

    α_v is the learning rate that made version v + 1. With a the gradient that was applied there, the update rule gives

        μ̂_T = μ + median_i ( α_v (g_v − a) / (x_v − x_{v−1}) )_i

    exactly, at any delay; so without staleness it equals μ to rounding, whatever the noise. The loop of both momentum
    and learning rate goes by the same difference over the step before that one (`excess`).

    Of the parameters only K coordinates are kept, drawn once by `seed`, for the last `history` versions, in the
    parameters' own precision (4 K history bytes for float32). Differences of neighbouring versions are exact there, or
    nearly, so the only error that matters is the rounding of x_{v+1}: random, at most half a unit in the last place.
    Coordinates where |x_v − x_{v−1}| is at most 8 such units of x_v are left out; over the others the median averages
    the rounding away. Of an even number of ratios the lower middle one is the median.

    size: N. sample: as for `Sample`. history: versions kept, at least 3. resolution: spacing of the
    parameters' numbers relative to their size (2⁻²³ for float32; 0 uses every coordinate that moved).
    """

    def __init__(
        self, size: int, *, sample: int | Tensor, history: int, seed: int, resolution: float = 2.0**-23
    ) -> None:
        self._sample, self._history = Sample(size, sample, seed), history
        self._longest = 1.0 / (ULPS * resolution) if resolution else math.inf
        self._needed = min(NEEDED, -(-self.count // 2))
        self._rows = torch.empty(0)  # [history, K] from the first version on: written over in place, it never grows
        self._versions = [-1] * history
        self._rates = [0.0] * history
        self._momenta = [0.0] * history

    @property
    def count(self) -> int:
        """K, the number of coordinates sampled."""
        return self._sample.count

    def sample(self, vector: Tensor) -> Tensor:
        """The sampled coordinates of a vector [N], as a new tensor [K]."""
        return self._sample.take(vector)

    def record(self, version: int, sampled: Tensor, learning_rate: float, momentum: float = 0.0) -> None:
        """Remember a version: its sampled coordinates [K] (copied), and the α and μ of the update that made it."""
        slot = version % self._history
        if not self._rows.numel():
            self._rows = sampled.new_empty(self._history, sampled.numel())
        self._rows[slot] = sampled
        self._versions[slot] = version
        self._rates[slot] = learning_rate
        self._momenta[slot] = momentum

    def measure(self, version: int, applied: Tensor) -> float | None:
        """μ̂_T at `version` from g_v [K], which was computed there and scaled and decayed as it was applied.

        None when version − 1, version or version + 1 is not remembered (so always at version 0), or when too few
        coordinates moved: fewer than 16, or than half the sample where that is smaller.
        """
        before, here, after = (self._row(v) for v in (version - 1, version, version + 1))
        if before is None or here is None or after is None:
            return None
        rate = self._rates[(version + 1) % self._history]
        return self._median((after - here).add_(applied, alpha=rate), before, here)

    def excess(self, version: int, applied: Tensor) -> float | None:
        """What staleness adds: median_i ( α_v (g_v − a) / (x_{v−1} − x_{v−2}) )_i / (1 + μ − μ²), for μ of that update.

        The difference is the one in μ̂_T − μ, but over the step before. For x_v − x_{v−1} was made by a gradient of the
        very worker that then was given x_v, and two gradients of one worker have more in common than the trajectory:
        without replacement from a few batches they contradict each other, whatever α is. In noise, where steps are
        alike by their momentum only, the median is 1 + μ − μ² times that over the last step, which is divided out: at
        any μ the answer then is μ̂_T − μ without what one worker's gradients have in common.

        None when version − 2 … version + 1 are not all remembered, and as in `measure`.
        """
        older, before, here, after = (self._row(v) for v in (version - 2, version - 1, version, version + 1))
        if older is None or before is None or here is None or after is None:
            return None
        slot = (version + 1) % self._history
        momentum = self._momenta[slot]
        left = (after - here).add_(applied, alpha=self._rates[slot]).sub_(here - before, alpha=momentum)
        found, mu = self._median(left, older, before), max(momentum, LEAST)
        return None if found is None else found / (1.0 + mu - mu * mu)

    def _median(self, left: Tensor, before: Tensor, here: Tensor) -> float | None:
        """Of left/(here − before), over the coordinates that moved; `left` is written over."""
        moved = here - before
        usable = (here / moved).abs_() < self._longest  # also leaves out whatever divides by zero
        ratio = left.div_(moved).masked_select(usable)
        return float(ratio.median()) if ratio.numel() >= self._needed else None

    def holds(self, version: int) -> bool:
        """Whether that version is remembered."""
        return version >= 0 and self._versions[version % self._history] == version

    def _row(self, version: int) -> Tensor | None:
        return self._rows[version % self._history] if self.holds(version) else None

    def state_dict(self) -> State:
        """The remembered versions, oldest first: numbers, α, μ, coordinates [versions, K]; the sample."""
        known = sorted(v for v in self._versions if v >= 0)
        return {
            "index": self._sample.saved(),
            "versions": known,
            "rates": [self._rates[v % self._history] for v in known],
            "momenta": [self._momenta[v % self._history] for v in known],
            "rows": self._rows[[v % self._history for v in known]] if known else None,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer; versions beyond `history` are dropped, oldest first.

        Raises ValueError when the sample has another size.
        """
        rows = state["rows"]
        self._sample.restore(state["index"])
        self._rows = torch.empty(0)
        self._versions = [-1] * self._history
        momenta = state.get("momenta", [math.nan] * len(state["versions"]))  # not known: the excess is then NaN
        for position, version in enumerate(state["versions"]):
            self.record(version, rows[position], float(state["rates"][position]), float(momenta[position]))
