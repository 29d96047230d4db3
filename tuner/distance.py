"""The distance target: learning rates and decay without tuning, from how far the optimum turns out to be.

Source of the estimate: Mishchenko and Defazio (2023), Prodigy, after D-Adaptation; here a target for a rule of Adam's
kind, for each layer by itself, with the version that each gradient was really computed at, and able to fall.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuner.averages import Average
from tuner.dead_time import haste
from tuner.first_distance import first_distances
from tuner.invariance import Invariance
from tuner.layers import Layers, Strides
from tuner.sparsity import Sparsity
from tuner.spread import Spread
from tuner.sums import Sums, dot
from tuner.target import Decision, NonFiniteGradient, State
from tuner.warmup import WarmUp

GROWTH = 0.03  # most that an estimate grows in an update, times `haste`; by measurement, as all (docs/research.md)
SHRINKING = 0.02  # what an estimate loses in an update where its layer has gone too far
BELOW = 0.005  # what it loses then below d_0, where gradients are stale, and regains in an update where that is not so
DOUBT = 2.0  # standard errors by which ⟨g, x_0 − x_v⟩ must be below 0 for that
MEMORY = 0.98  # decay of all sums and averages: what the last fifty gradients say, not the first hundred
POWER = 1.5  # the learning rate falls as (1 − t/T)^1.5 over the run's T updates


class LearntDistance:
    """α_t = d_t · p_t · (1 − t/T)^1.5 in each layer, for a rule whose steps are as long as α everywhere.

    p rises to 1 in the first updates, see `WarmUp`.

    d estimates the largest distance of any of the layer's coordinates to the optimum. With k = 0.02 (d/d_0)² α_t/d
    and g the gradient that was computed at version v, which must still be known (or a replay would count otherwise):

        r ← 0.98 r + k ⟨g, x_0 − x_v⟩,   s ← 0.98 s + k g,   d ← max(d, min(r / ‖s‖₁, (1 + 0.03 q) d)),

    all of the layer alone, with q = min(1, (20/(1 + E[τ]))^1.5), see `tuner.dead_time`. ⟨g, x_0 − x_v⟩ with the v of
    the gradient is a lower bound's numerator at any staleness; at x_t it would count the way that later updates have
    gone, too. It also tells when d is too large: once steps of that length only scatter x about the optimum, the
    gradient points back to where the layer came from, and ⟨g, x_0 − x_v⟩ falls below 0. Where its mean over some fifty
    gradients is below 0 by two standard errors, d ← max(0.98 d, d_0); at d_0, which was guessed for gradients that are
    not stale, d ← max(0.995 d, √w d_0) with w the mean of 1/(1 + τ), and d ← min(1.005 d, d_0) where that mean is above
    0 again.

    d_0 is 0.04 times the mean magnitude of the layer's x_0, or of what is usual for its shape where that says nothing,
    see `tuner.first_distance`. So d is of the parameters' scale, and knows nothing of the loss's: both sums have it.
    Where a layer's gradients are sparse its steps are longer by a factor, see `Sparsity`, and go by a d of at least
    that factor times min(d, d_0): what seldom moves must be there in few moves. In an embedding it is at least 1/w
    times that: however stale a gradient, few of those that came between moved its rows.

    The decision's floor is the α of that least d, not lengthened a second time. Of a layer whose scale does not matter
    it is that of d itself: steps that are too long make its weights larger, and so turn it less (Arora, Li and Lyu,
    2019), which lowers its learning rate where staleness asks for it, without a loop.

    size: N. momentum: μ*. updates: T. layers: sizes of the layers in the flat vector; none for one. embeddings: which
    of them are, by number. fans: their fan-in, 0 where a layer has none. weight_decay: λ, if λx is part of the
    gradients. Owns x_0 and s, two vectors [N]. The decision's α is the geometric mean over parameters; `strides` has
    each layer's in parts of it. Raises ValueError where there are more or fewer fans than layers.
    """

    def __init__(
        self,
        size: int,
        *,
        momentum: float,
        updates: int,
        layers: tuple[int, ...] = (),
        weight_decay: float = 0.0,
        embeddings: tuple[int, ...] = (),
        fans: tuple[int, ...] = (),
    ) -> None:
        self._layers = Layers(size, layers)
        if fans and len(fans) != len(self._layers):
            raise ValueError(f"fans: expected those of {len(self._layers)} layers, got {len(fans)}")
        self._fans = fans
        self._decay = weight_decay
        self._momentum, self._updates = momentum, updates
        self._count = 0
        self._start: Tensor | None = None
        self._sum: Tensor | None = None
        self._sums = Sums()
        self._sparsity, self._invariance = Sparsity(self._layers, embeddings), Invariance(self._layers, weight_decay)
        self._fresh, self._stale, self._staleness = Average(MEMORY), Average(MEMORY), 0
        self._spread = Spread()
        self._warm_up, self._way = WarmUp(updates, self._spread), 0.0
        self._parts = [part / size for part in self._layers.sizes]
        zero = [0.0] * len(self._layers)
        self._first, self._distances, self._invariant = list(zero), list(zero), [False] * len(zero)
        self._unscaled: frozenset[int] = frozenset()
        self._numerators, self._norms, self._weights = list(zero), list(zero), list(zero)
        self._means, self._squares, self._towards = list(zero), list(zero), list(zero)

    @property
    def distances(self) -> tuple[float, ...]:
        """d of each layer, the newest estimates; 0 before the first gradient."""
        return tuple(self._distances)

    @property
    def distance(self) -> float:
        """Their geometric mean over parameters; 0 before the first gradient."""
        return self._mean(self._distances)

    def hear(self, loss: float, staleness: int = 0) -> None:
        """Take the staleness; losses say nothing here."""
        self._staleness = staleness

    def look(self, block: slice, gradient: Tensor, origin: Tensor | None = None) -> None:
        """Take ‖g‖² and ⟨g, x_0 − x_v⟩ of one block; without an origin the second is 0."""
        self._sums.add(gradient)
        self._sparsity.look(block, gradient)
        if origin is None:
            return
        if self._start is None:
            self._start = torch.zeros(self._layers.size, dtype=origin.dtype, device=origin.device)
        if self._count == 0:
            self._start[block] = origin
            self._invariance.look(block, gradient, origin)
            return
        way = self._start[block] - origin
        if not self._warm_up.over:
            self._way += dot(way, way)
        for layer, part in self._layers.pieces(block):
            self._towards[layer] += dot(gradient[part], way[part])

    def look_curvature(self, h_max: float, h_mean: float) -> None:
        """Curvature says nothing here."""

    def decide(self) -> Decision:
        """The numbers for this update; see `Target` for the errors."""
        if not self._sums.blocks:
            raise RuntimeError("expected look() at the blocks of a gradient before decide(), got none")
        (squares, _), everywhere, way, staleness = self._sums.totals(), self._towards, self._way, self._staleness
        self._forget()
        if not (math.isfinite(squares) and all(math.isfinite(towards) for towards in everywhere)):
            self._start = self._start if self._count else None
            self._invariance = Invariance(self._layers, self._decay)
            self._sparsity.drop()
            raise NonFiniteGradient(f"expected a finite gradient, got one with ‖g‖² = {squares}")
        if self._count == 0:
            self._begin()
        self._stale.update(float(staleness))
        self._spread.update(staleness)
        share = self._warm_up.update(staleness, _cosine(sum(everywhere), squares, way))
        share *= falling(self._count, self._updates)
        for layer, towards in enumerate(everywhere):
            self._advance(layer, towards, share)
        self._count += 1
        self._sparsity.next()
        fresh = self._fresh.update(1.0 / (1.0 + staleness))
        longer = self._sparsity.factors(fresh)
        least = self._sparsity.least(longer, fresh)
        floors = [min(d, first) * times for d, first, times in zip(self._distances, self._first, least, strict=True)]
        reached = [max(d, floor) for d, floor in zip(self._distances, floors, strict=True)]
        steps = [d * factor for d, factor in zip(reached, longer, strict=True)]
        mean = self._mean(steps)
        strides = Strides(self._layers, tuple(step / mean for step in steps), self._unscaled)
        borne = [d if of else floor for d, floor, of in zip(reached, floors, self._invariant, strict=True)]
        floor = self._mean(borne) * share
        return Decision(mean * share, self._momentum, 1.0, math.sqrt(squares), floor=floor, strides=strides)

    def _begin(self) -> None:
        """Set d_0 from x_0."""
        start = torch.zeros(self._layers.size) if self._start is None else self._start
        self._invariant = self._invariance.found()
        self._unscaled = _numbers(self._invariant)
        self._first = first_distances(start, self._layers, self._invariant, self._fans)
        self._distances = list(self._first)

    def _advance(self, layer: int, towards: float, share: float) -> None:
        """Take ⟨g, x_0 − x_v⟩ of one layer into its estimate."""
        d, first = self._distances[layer], self._first[layer]
        if self._norms[layer] > 0.0:
            most = (1.0 + GROWTH * haste(self._stale.value)) * d
            d = max(d, min(self._numerators[layer] / self._norms[layer], most))
        self._distances[layer] = d = self._held_back(d, first, self._errors(layer, towards))
        self._weights[layer] = (1.0 - MEMORY) * (d / first) ** 2 * share
        self._numerators[layer] = MEMORY * self._numerators[layer] + self._weights[layer] * towards
        self._norms[layer] = 0.0

    def _held_back(self, d: float, first: float, errors: float) -> float:
        """d, less where ⟨g, x_0 − x_v⟩ is below 0 by that many standard errors."""
        if errors < -DOUBT:
            if d > first:
                return max((1.0 - SHRINKING) * d, first)
            least = 1.0 if self._fresh.empty else math.sqrt(self._fresh.value)
            return min(d, max((1.0 - BELOW) * d, first * least))
        return min((1.0 + BELOW) * d, first) if d < first and errors > 0.0 else d

    def _errors(self, layer: int, towards: float) -> float:
        """The mean of ⟨g, x_0 − x_v⟩ in standard errors of it; 0 while too few are known."""
        known = 1.0 - MEMORY ** (self._count + 1)
        self._means[layer] += (1.0 - MEMORY) * (towards - self._means[layer])
        self._squares[layer] += (1.0 - MEMORY) * (towards * towards - self._squares[layer])
        mean = self._means[layer] / known
        error = math.sqrt(max(0.0, self._squares[layer] / known - mean * mean) * (1.0 - MEMORY) / (1.0 + MEMORY))
        if self._count < 20 or mean == 0.0:
            return 0.0
        return mean / error if error > 0.0 else math.copysign(math.inf, mean)

    def absorb(self, block: slice, gradient: Tensor) -> None:
        """`s ← 0.98 s + k g` over one block, and its shares of each ‖s‖₁."""
        if self._sum is None:
            self._sum = torch.zeros(self._layers.size, dtype=gradient.dtype, device=gradient.device)
        s, pieces = self._sum[block].mul_(MEMORY), self._layers.pieces(block)
        for layer, part in pieces:
            s[part].add_(gradient[part], alpha=self._weights[layer])
        magnitudes = s.abs()
        for layer, part in pieces:
            self._norms[layer] += magnitudes[part].sum().item()

    def _forget(self) -> None:
        self._sums.clear()
        self._staleness, self._way = 0, 0.0
        self._towards = [0.0] * len(self._layers)

    def _mean(self, values: list[float]) -> float:
        if min(values) <= 0.0 or len(values) == 1:
            return min(values)
        return math.exp(sum(part * math.log(value) for part, value in zip(self._parts, values, strict=True)))

    def state_dict(self) -> State:
        """See `Target`."""
        return {
            "count": self._count,
            "fresh": self._fresh.state_dict(),
            "stale": self._stale.state_dict(),
            "spread": self._spread.state_dict(),
            "warm_up": self._warm_up.state_dict(),
            "sparsity": self._sparsity.state_dict(),
            "first": list(self._first),
            "invariant": list(self._invariant),
            "distances": list(self._distances),
            "numerators": list(self._numerators),
            "norms": list(self._norms),
            "means": list(self._means),
            "squares": list(self._squares),
            "start": None if self._start is None else self._start.clone(),
            "sum": None if self._sum is None else self._sum.clone(),
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer. Raises ValueError when it is of another size or has other layers."""
        for name in ("start", "sum"):
            if state[name] is not None and state[name].numel() != self._layers.size:
                raise ValueError(f"{name}: expected {self._layers.size} values, got {state[name].numel()}")
        known = len(state.get("distances", ()))
        if known != len(self._layers):
            raise ValueError(f"distances: expected those of {len(self._layers)} layers, got {known}")
        self._forget()
        self._count = int(state["count"])
        self._fresh.load_state_dict(state["fresh"])
        self._stale.load_state_dict(state["stale"])
        if "spread" in state:
            self._spread.load_state_dict(state["spread"])
        if "warm_up" in state:
            self._warm_up.load_state_dict(state["warm_up"])
        else:
            self._warm_up.begun_before(self._count)
        self._sparsity.load_state_dict(state["sparsity"])
        self._first = [float(value) for value in state["first"]]
        self._invariant = [bool(value) for value in state["invariant"]]
        self._unscaled = _numbers(self._invariant)
        self._distances = [float(value) for value in state["distances"]]
        self._numerators = [float(value) for value in state["numerators"]]
        self._norms = [float(value) for value in state["norms"]]
        self._means = [float(value) for value in state["means"]]
        self._squares = [float(value) for value in state["squares"]]
        self._start = None if state["start"] is None else state["start"].clone()
        self._sum = None if state["sum"] is None else state["sum"].clone()


def falling(t: int, updates: int) -> float:
    """`(1 − t/T)^1.5` for update number t of T, from 0; 0 from T on."""
    return float(max(0.0, 1.0 - t / updates) ** POWER)


def _numbers(chosen: list[bool]) -> frozenset[int]:
    return frozenset(number for number, is_one in enumerate(chosen) if is_one)


def _cosine(product: float, squares: float, way: float) -> float | None:
    """The cosine of two vectors, of their product and squared lengths; None where one is 0."""
    lengths = math.sqrt(squares) * math.sqrt(way)
    return product / lengths if lengths > 0.0 else None
