"""The distance target: learning rate and decay without tuning, from how far the optimum turns out to be.

Source of the estimate: Mishchenko and Defazio (2023), Prodigy, after D-Adaptation; here a target for a rule of Adam's
kind, and with the version that each gradient was really computed at.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuner.sums import Sums
from tuner.target import Decision, NonFiniteGradient, State

GAIN = 1.4  # of α over the estimate; by measurement (docs/research.md)
INITIAL = 1e-3  # d_0, Adam's customary learning rate: where the estimate starts, and what it never falls below
GROWTH = 0.02  # most that the estimate grows in an update; quicker, and the first hundred updates run away
BETA3 = math.sqrt(0.999)  # decay of the two sums; the published √β2 for β2 = 0.999
WARMUP = 40  # updates of linear warm-up
POWER = 1.5  # the learning rate falls as (1 − t/T)^1.5 over the run's T updates


class LearntDistance:
    """α_t = 1.4 d_t · min(1, (t+1)/40) · (1 − t/T)^1.5, for a rule whose steps are as long as α in every coordinate.

    d estimates the largest distance of any coordinate to the optimum. With k = (1 − β3) (d/d_0)² α_t/(1.4 d_t) and g
    the gradient that was computed at version v, which must still be known (or a replay would count otherwise):

        r ← β3 r + k ⟨g, x_0 − x_v⟩,   s ← β3 s + k g,   d ← max(d, min(r / ‖s‖₁, 1.02 d)).

    ⟨g, x_0 − x_v⟩ with the v of the gradient is a lower bound's numerator at any staleness; at x_t it would count the
    way that later updates have gone, too. d is of the parameters' scale and knows nothing of the loss's: both sums
    have it.

    size: N. momentum: μ*. updates: T. Owns x_0 and s, two vectors [N].
    """

    def __init__(self, size: int, *, momentum: float, updates: int) -> None:
        self._size, self._momentum, self._updates = size, momentum, updates
        self._count = 0
        self._distance, self._numerator, self._norm = INITIAL, 0.0, 0.0
        self._weight = 0.0
        self._start: Tensor | None = None
        self._sum: Tensor | None = None
        self._sums = Sums()

    @property
    def distance(self) -> float:
        """d, the newest estimate."""
        return self._distance

    def hear(self, loss: float) -> None:
        """Losses say nothing here."""

    def look(self, block: slice, gradient: Tensor, origin: Tensor | None = None) -> None:
        """Take ‖g‖² and ⟨g, x_0 − x_v⟩ of one block; without an origin the second is 0."""
        if origin is None:
            self._sums.add(gradient)
            return
        if self._start is None:
            self._start = torch.zeros(self._size, dtype=origin.dtype, device=origin.device)
        if self._count == 0:
            self._start[block] = origin
        self._sums.add(gradient, self._start[block] - origin)

    def look_curvature(self, h_max: float, h_mean: float) -> None:
        """Curvature says nothing here."""

    def decide(self) -> Decision:
        """The numbers for this update; see `Target` for the errors."""
        if not self._sums.blocks:
            raise RuntimeError("expected look() at the blocks of a gradient before decide(), got none")
        squares, towards = self._sums.totals()
        self._sums.clear()
        if not (math.isfinite(squares) and math.isfinite(towards)):
            self._start = self._start if self._count else None
            raise NonFiniteGradient(f"expected a finite gradient, got one with ‖g‖² = {squares}")
        d = self._distance
        if self._norm > 0.0:
            d = max(d, min(self._numerator / self._norm, (1.0 + GROWTH) * d))
        share = schedule(self._count, self._updates)
        self._weight = (1.0 - BETA3) * (d / INITIAL) ** 2 * share
        self._numerator = BETA3 * self._numerator + self._weight * towards
        self._distance, self._norm = d, 0.0
        self._count += 1
        return Decision(GAIN * d * share, self._momentum, 1.0, math.sqrt(squares), floor=INITIAL * share)

    def absorb(self, block: slice, gradient: Tensor) -> None:
        """`s ← β3 s + k g` over one block, and its share of ‖s‖₁."""
        if self._sum is None:
            self._sum = torch.zeros(self._size, dtype=gradient.dtype, device=gradient.device)
        s = self._sum[block]
        s.mul_(BETA3).add_(gradient, alpha=self._weight)
        self._norm += float(torch.linalg.vector_norm(s, 1))

    def state_dict(self) -> State:
        """See `Target`."""
        return {
            "count": self._count,
            "distance": self._distance,
            "numerator": self._numerator,
            "norm": self._norm,
            "start": None if self._start is None else self._start.clone(),
            "sum": None if self._sum is None else self._sum.clone(),
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer. Raises ValueError when a vector has another size."""
        for name in ("start", "sum"):
            if state[name] is not None and state[name].numel() != self._size:
                raise ValueError(f"{name}: expected {self._size} values, got {state[name].numel()}")
        self._sums.clear()
        self._count = int(state["count"])
        self._distance, self._numerator = float(state["distance"]), float(state["numerator"])
        self._norm = float(state["norm"])
        self._start = None if state["start"] is None else state["start"].clone()
        self._sum = None if state["sum"] is None else state["sum"].clone()


def schedule(t: int, updates: int) -> float:
    """`min(1, (t+1)/40) (1 − t/T)^1.5` for update number t of T, from 0; 0 from T on."""
    left = max(0.0, 1.0 - t / updates)
    return float(min(1.0, (t + 1) / WARMUP) * left**POWER)
