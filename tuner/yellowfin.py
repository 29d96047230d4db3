"""The YellowFin target: α and μ* from the gradients alone.

Source: J. Zhang and I. Mitliagkas, "YellowFin and the art of momentum tuning" (2019), and the authors' release.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuner.averages import Average
from tuner.curvature import MeasuredCurvature
from tuner.line_search import ByWorkers, SearchedDistance
from tuner.measurements import CurvatureRange, Distance, GradientVariance
from tuner.robust import LARGEST_RATE, GainLimit, LossUnit
from tuner.single_step import single_step
from tuner.sums import Sums
from tuner.target import Decision, NonFiniteGradient, State


class YellowFinTarget:
    """Chooses α and μ* for every gradient.

    The order for gradient number t (from 0), h_t = ‖g_t‖²:

     1. clipping:    s = min(1, √h_max/‖g_t‖), with h_max from before this gradient; s = 1 at the first one.
     2. curvature:   h_t, unclipped but at most 100 h_max, enters the window; then h_min and h_max.
     3. variance C and distance D take the clipped gradient s·g_t, the same that the update applies.
     4. single step: α_t and μ_t from C, D, h_min and h_max.
     5. smoothing:   "ema" replaces both by their zero-debiased exponential averages (α and μ themselves, not their
                     logarithms, and before warm-up); "none" keeps them.
     6. warm-up:     α ← min(α, α (t+1)/(10 w)) for window w.
     7. robust:      α in `LossUnit`s, so that a multiple of the loss changes α alone; after warm-up, α and μ* within
                     `GainLimit`; and h_t, in step 2, at least h_min/100. Steps 1 to 6 are the published rule.

    With `curvature_every` in `by_workers`, the curvatures that workers measure (`look_curvature`) take the place of
    h_min and h_max in step 4, from the first of them on, and D is the average of EMA(‖g‖)/h_max: the distance that is
    certain, for ‖g‖ ≤ h_max ‖x − x*‖. Clipping keeps to ‖g‖².

    With `distance_every` in it, the average s of the lengths that workers find by line searches (`look_distance`) takes
    the place of D in step 4, from the first of them on. Where step 7 measures α in units u of the loss, D is s/u: there
    h/u is what stands for a curvature, and s (h/u) = (s/u) h, so that a multiple of the loss still changes α alone.

    While every gradient has been zero nothing is known: α = 0 and μ* = 0. Afterwards a zero gradient counts in C and
    D, and leaves the curvature range alone.

    size: N. beta: β in [0, 1). window: w. smoothing: "ema" or "none". clip: whether step 1 happens. robust: whether
    step 7 does. every: k, take step 3, which reads and writes e, with every k-th gradient only and with βᵏ for β.
    by_workers: what workers measure, and how often; by default nothing.
    Owns one vector [N], e, float32 (float64 for float64 gradients), on the device of the first gradient absorbed.
    """

    def __init__(
        self,
        size: int,
        *,
        beta: float = 0.999,
        window: int = 20,
        smoothing: str = "none",
        clip: bool = True,
        robust: bool = False,
        every: int = 1,
        by_workers: ByWorkers | None = None,
    ) -> None:
        self._size, self._beta, self._window, self._every = size, beta**every, window, every
        self._robust, self._unit, self._limit = robust, LossUnit(window), GainLimit(10 * window)
        self._loss: float | None = None
        self._smooth, self._clip = smoothing == "ema", clip
        self._count = 0
        self._scale, self._due = 1.0, True
        self._mean: Tensor | None = None
        self._sums = Sums()
        self._curvature = CurvatureRange(beta, window, both_ways=robust)
        curvature, distance = (by_workers.curvature_every, by_workers.distance_every) if by_workers else (0, 0)
        self._measured = MeasuredCurvature(beta, curvature) if curvature else None
        self._searched = SearchedDistance(beta, distance) if distance else None
        self._variance = GradientVariance(self._beta)
        self._distance = Distance(self._beta)
        self._rate, self._momentum = Average(beta), Average(beta)

    def hear(self, loss: float, staleness: int = 0) -> None:
        """Take the loss of the gradient about to be looked at; its staleness says nothing here."""
        self._loss = loss

    def look(self, block: slice, gradient: Tensor, origin: Tensor | None = None) -> None:
        """Take ‖g‖² and ⟨e, g⟩ of one block."""
        without = self._mean is None or self._count % self._every
        self._sums.add(gradient, None if without or self._mean is None else self._mean[block])

    def look_curvature(self, h_max: float, h_mean: float) -> None:
        """Take what a worker measured; nothing without `curvature_every`."""
        if self._measured is not None:
            self._measured.look(h_max, h_mean)

    def look_distance(self, length: float) -> None:
        """Take the length at which a worker's loss is least along −g; nothing without `distance_every`."""
        if self._searched is not None:
            self._searched.look(length)

    def decide(self) -> Decision:
        """Choose for the gradient just looked at; see the class for the order and `Target` for the errors."""
        if not self._sums.blocks:
            raise RuntimeError("expected look() at the blocks of a gradient before decide(), got none")
        squares, products = self._sums.totals()
        self._sums.clear()
        loss, self._loss = self._loss, None
        if not (math.isfinite(squares) and math.isfinite(products)):
            for one in (self._measured, self._searched):
                if one is not None:
                    one.drop()
            raise NonFiniteGradient(f"expected a finite gradient, got one with ‖g‖² = {squares}")
        norm = math.sqrt(squares)
        s = self._clipping(norm)
        self._curvature.update(squares)
        for one in (self._measured, self._searched):
            if one is not None:
                one.accept()
        self._due = self._count % self._every == 0
        if self._due:
            self._variance.update(s * s * squares, s * products)
            measured = self._range_measured()
            self._distance.update(s * norm, self._variance.mean_square if measured is None else measured.h_max)
        unit = self._units(loss) if self._robust else 1.0
        alpha, mu = self._step(unit)
        alpha *= min(1.0, (self._count + 1) / (10.0 * self._window))
        self._count += 1
        self._scale = s
        if not self._robust:
            return Decision(alpha, mu, s, norm)
        free = min(alpha * unit, LARGEST_RATE)
        alpha, limited = self._limit.limit(free, mu)
        step = (1.0 - math.sqrt(mu)) ** 2 * (alpha / free if free else 1.0)
        return Decision(alpha, limited, s, norm, step=step)

    def _clipping(self, norm: float) -> float:
        if not (self._clip and self._curvature.known):
            return 1.0
        threshold = math.sqrt(self._curvature.h_max)
        return threshold / norm if norm > threshold else 1.0

    def _step(self, unit: float) -> tuple[float, float]:
        if not self._curvature.known:
            return 0.0, 0.0
        range_ = self._range_measured() or self._curvature
        searched = self._searched
        D = searched.value / unit if searched is not None and searched.known else self._distance.value
        alpha, mu = single_step(self._variance.value, D, range_.h_min, range_.h_max)
        if self._smooth:
            return self._rate.update(alpha), self._momentum.update(mu)
        return alpha, mu

    def _units(self, loss: float | None) -> float:
        """What α is multiplied by so that a multiple of the loss changes α alone; measured curvature needs nothing."""
        return self._unit.take(loss) if self._measured is None else 1.0

    def _range_measured(self) -> MeasuredCurvature | None:
        return self._measured if self._measured is not None and self._measured.known else None

    def absorb(self, block: slice, gradient: Tensor) -> None:
        """`e ← βe + (1−β) s g` over one block."""
        if not self._due:
            return
        if self._mean is None:
            dtype = torch.promote_types(gradient.dtype, torch.float32)
            self._mean = torch.zeros(self._size, dtype=dtype, device=gradient.device)
        e, rest = self._mean[block], 1.0 - self._beta
        if self._scale == 1.0 and gradient.dtype == e.dtype:
            e.lerp_(gradient, rest)
        else:
            e.mul_(self._beta).add_(gradient, alpha=rest * self._scale)

    def extend(self, count: int) -> None:
        """Append `count` parameters, whose gradients so far were zero."""
        self._size += count
        if self._mean is not None:
            self._mean = torch.cat((self._mean, self._mean.new_zeros(count)))

    def state_dict(self) -> State:
        """See `Target`; valid before the first gradient, and not to be taken between `decide` and `absorb`."""
        return {
            "count": self._count,
            "mean": None if self._mean is None else self._mean.clone(),
            "curvature": self._curvature.state_dict(),
            "variance": self._variance.state_dict(),
            "distance": self._distance.state_dict(),
            "rate": self._rate.state_dict(),
            "momentum": self._momentum.state_dict(),
            **({} if self._measured is None else {"measured": self._measured.state_dict()}),
            **({} if self._searched is None else {"searched": self._searched.state_dict()}),
            "limit": self._limit.state_dict(),
            "unit": self._unit.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer. Raises ValueError when e has another size."""
        mean = state["mean"]
        if mean is not None and mean.numel() != self._size:
            raise ValueError(f"mean: expected {self._size} values, got {mean.numel()}")
        self._sums.clear()
        self._count = int(state["count"])
        self._mean = None if mean is None else mean.clone()
        self._curvature.load_state_dict(state["curvature"])
        self._variance.load_state_dict(state["variance"])
        self._distance.load_state_dict(state["distance"])
        self._rate.load_state_dict(state["rate"])
        self._momentum.load_state_dict(state["momentum"])
        if self._measured is not None:
            self._measured.load_state_dict(state["measured"])
        if self._searched is not None:
            self._searched.load_state_dict(state["searched"])
        if "limit" in state:  # states of version 0.1 have none
            self._limit.load_state_dict(state["limit"])
            self._unit.load_state_dict(state["unit"])
