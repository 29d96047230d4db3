"""One update: the tuner looks at the gradient, the rule writes the next version, the tuner measures what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Literal, Protocol

import torch
from torch import Tensor

from psserver.applied import Applied
from psserver.rule_state import Attributed, Layered, Pulled, Whole
from psserver.rules import Rule
from psserver.spread import Spread
from psserver.staleness import Corrected
from psserver.trajectory import Trajectory
from tuner import Settings

Vectors = tuple[Tensor, Tensor, Tensor]  # the new version, the newest one and the one before it, each [N]
BLOCK = 65_536  # float32 values: the arrays that one block of an update touches fit into the second-level cache


class Tuning(Protocol):
    """What an update asks of a tuner; `tuner.Tuner` is the one there is."""

    @property
    def clamped(self) -> Literal["low", "high"] | None:
        """At which end the loop's clamp held μ back at the last measurement."""

    @property
    def needs_origin(self) -> bool:
        """Whether a gradient is of no use to it without the version that it was computed at."""

    @property
    def measured_beside(self) -> Mapping[str, float | None]:
        """What further estimators said at the last measurement, by name."""

    def hear(self, loss: float, staleness: int = 0) -> None:
        """Take the loss of the gradient about to be looked at, and its staleness in updates."""

    def look(self, block: slice, gradient: Tensor, origin: Tensor) -> None:
        """Take sums over one block of the gradient; origin: that block of the version it was computed at."""

    def look_curvature(self, h_max: float, h_mean: float) -> None:
        """Take what was measured of the Hessian at the same gradient."""

    def look_distance(self, length: float) -> None:
        """Take where the loss of the same gradient is least along its negative."""

    def decide(self) -> Settings:
        """Choose α and μ for the gradient just looked at."""

    def absorb(self, block: slice, gradient: Tensor) -> None:
        """Take one block of the gradient into the running averages."""

    def record(self, version: int, parameters: Tensor) -> Tensor:
        """Remember the sampled coordinates of a new version; returns them."""

    def sample(self, vector: Tensor) -> Tensor:
        """The sampled coordinates of a vector."""

    def measure(self, version: int, applied: Tensor) -> float | None:
        """Total momentum at `version` by the gradient that was computed there."""


@dataclass(frozen=True)
class Update:
    """What one update did.

    version:        the version it made.
    settings:       what the tuner chose, as far as the rule can do it.
    total_momentum: what it measured afterwards.
    clamped:        at which end, if any, the clamp then held the momentum of the next update back.
    beside:         what further estimators of total momentum said, by name.
    """

    version: int
    settings: Settings
    total_momentum: float | None
    clamped: Literal["low", "high"] | None = None
    beside: Mapping[str, float | None] = field(default_factory=dict)


class Updater:
    """Applies gradients to a trajectory; the only place where parameters change.

    spread: what works on several blocks at once where the rule is `Whole`; without it one comes after another.
    """

    def __init__(
        self, trajectory: Trajectory, rule: Rule, tuner: Tuning, weight_decay: float, spread: Spread | None = None
    ) -> None:
        self.trajectory = trajectory
        self.rule = rule
        self.tuner = tuner
        self._weight_decay = weight_decay
        self._correction = rule if isinstance(rule, Corrected) else None
        plain = rule.rule if isinstance(rule, Corrected) else rule
        self._attributed = plain if isinstance(plain, Attributed) else None
        self._layered = plain if isinstance(plain, Layered) else None
        self._pulled = rule if isinstance(rule, Pulled) and isinstance(rule, Whole) and rule.whole else None
        self._compensates = self._correction is not None and self._correction.compensates
        size = trajectory.current.tensor.numel()
        self._blocks = blocks(size, plain.whole if isinstance(plain, Whole) else ())
        self._spread = spread if isinstance(plain, Whole) and not self._compensates else None
        longest = max(block.stop - block.start for block in self._blocks)
        self._decayed, self._scratch = torch.empty(longest), torch.empty(longest)
        self._applied = Applied(rule, trajectory, tuner.sample)
        self._newest: tuple[int, Tensor] | None = None

    def lacks(self, computed_at: int) -> bool:
        """Whether a gradient computed at that version cannot be applied because that version is no longer kept."""
        corrected = self._correction is not None and self._correction.needs_origin
        return (corrected or self.tuner.needs_origin) and self.trajectory.at(computed_at) is None

    def apply(
        self,
        gradient: Tensor,
        computed_at: int,
        loss: float | None = None,
        curvature: tuple[float, float] | None = None,
        worker: int = 0,
        distance: float | None = None,
    ) -> Update:
        """Write version t + 1 from the gradient (float32 [N], computed at version `computed_at` ≤ t by `worker`).

        loss:      that of the gradient's batch.
        curvature: largest magnitude of an eigenvalue and mean of the diagonal of the loss's Hessian, where measured.
        distance:  length at which that loss is least along −gradient, where searched for.

        The mean of a synchronous round is worker 0's. The trajectory must not lack that version (`lacks`). Raises
        NonFiniteGradient, with everything as it was, when the gradient is not finite.
        """
        if self._attributed is not None:
            self._attributed.attribute(worker, computed_at, self.trajectory.version)
        if loss is not None:
            self.tuner.hear(loss, self.trajectory.version - computed_at)
        if distance is not None:  # of the loss; weight decay has no part in it
            self.tuner.look_distance(distance)
        if self._correction is None:
            return self._update(gradient, computed_at, curvature)
        staleness = self.trajectory.version - computed_at
        if not (staleness and self._correction.needs_origin):
            self._correction.arrive(staleness, None)
            return self._update(gradient, computed_at, curvature)
        with self._held(computed_at):
            try:
                self._correction.arrive(staleness, torch.from_numpy(self.trajectory.values(computed_at)))
                return self._update(gradient, computed_at, curvature)
            finally:
                self._correction.arrive(0, None)

    @contextmanager
    def _held(self, version: int) -> Iterator[None]:
        """Nothing is written over a version that is still kept."""
        self.trajectory.hold(version)
        try:
            yield
        finally:
            self.trajectory.release(version)

    def _update(self, gradient: Tensor, computed_at: int, curvature: tuple[float, float] | None) -> Update:
        x, kept = self.trajectory.current.tensor, self.trajectory.at(computed_at)
        origin = x if kept is None else kept.tensor
        for block, decayed in self._with_decay(gradient, x):
            self.tuner.look(block, decayed, origin[block])
        if curvature is not None:  # of the loss; weight decay adds λ to every eigenvalue
            self.tuner.look_curvature(curvature[0] + self._weight_decay, curvature[1] + self._weight_decay)
        settings = self.tuner.decide()
        if settings.pull is None:
            return self._written(gradient, computed_at, settings)
        if self._pulled is None or kept is None:
            return self._written(gradient, computed_at, replace(settings, pull=None))
        with self._held(computed_at):
            self._pulled.pull, self._pulled.origin = settings.pull, origin
            try:
                return self._written(gradient, computed_at, settings)
            finally:
                self._pulled.pull = self._pulled.origin = None

    def _written(self, gradient: Tensor, computed_at: int, settings: Settings) -> Update:
        """Version t + 1, as it was decided, and what is measured by it."""
        x, slot = self.trajectory.current.tensor, self.trajectory.next_slot()
        vectors = slot.tensor, x, self.trajectory.previous.tensor
        if self._layered is not None:
            self._layered.strides = settings.strides
        self.rule.begin(settings.learning_rate, settings.momentum)
        for block, decayed in self._with_decay(gradient, x):
            self.tuner.absorb(block, decayed)
            if self._spread is None:
                count = decayed.numel()
                self._write(block, decayed, vectors, settings.scale, self._decayed[:count], self._scratch[:count])
        if self._spread is not None:
            self._spread.each(lambda block: self._write_alone(block, gradient, vectors, settings.scale), self._blocks)
        applied = self._applied_sample(gradient, computed_at, x, settings)
        self.trajectory.commit(slot)
        self._newest = self.trajectory.version, self.tuner.record(self.trajectory.version, slot.tensor)
        total_momentum = self.tuner.measure(computed_at, applied)
        return Update(self.trajectory.version, settings, total_momentum, self.tuner.clamped, self.tuner.measured_beside)

    def _write(
        self, block: slice, decayed: Tensor, vectors: Vectors, scale: float, room: Tensor | None, scratch: Tensor
    ) -> None:
        """One block of the new version from that of g + λx; room: what is scaled goes there."""
        new, x, previous = (vector[block] for vector in vectors)
        scaled = decayed if scale == 1.0 else torch.mul(decayed, scale, out=room)
        self.rule.apply(block, new, x, previous, scaled, scratch)

    def _write_alone(self, block: slice, gradient: Tensor, vectors: Vectors, scale: float) -> None:
        """The same in room of its own, for others may be written at the same time."""
        part = gradient[block]
        if self._weight_decay:
            part = torch.add(part, vectors[1][block], alpha=self._weight_decay)
        self._write(block, part, vectors, scale, None, torch.empty_like(part))

    def _with_decay(self, gradient: Tensor, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of g + λx; of g itself, without a copy, when there is no weight decay. g is compensated if it is."""
        for block in self._blocks:
            part = gradient[block]
            if self._compensates:
                part = self._compensated(part, x[block], itemgetter(block), self._decayed)
            if self._weight_decay:
                part = torch.add(part, x[block], alpha=self._weight_decay, out=self._decayed[: part.numel()])
            yield block, part

    def _compensated(self, part: Tensor, x: Tensor, take: Callable[[Tensor], Tensor], room: Tensor) -> Tensor:
        if self._correction is None:
            return part
        return self._correction.compensate(part, x, take, room[: part.numel()])

    def _applied_sample(self, gradient: Tensor, computed_at: int, x: Tensor, settings: Settings) -> Tensor:
        """The gradient as it was applied, at the coordinates the tuner samples."""
        take = self._applied.take
        given, newest = take(gradient), self._newest
        known = newest is not None and newest[0] == self.trajectory.version and self._applied.alone
        here = newest[1] if newest is not None and known else take(x)
        if self._compensates:
            given = self._compensated(given, here, take, torch.empty_like(given))
        if self._weight_decay:
            given = torch.add(given, here, alpha=self._weight_decay)
        return self._applied.measured(given * settings.scale, here, computed_at)


def blocks(size: int, whole: Sequence[slice] = ()) -> list[slice]:
    """Consecutive blocks of a vector, of `BLOCK` values, or less where one of the `whole` parts would be cut.

    whole: parts in their order, none overlapping another; a longer one is a block by itself.
    """
    found, start, parts = [], 0, list(whole)
    while start < size:
        end = min(start + BLOCK, size)
        while parts and parts[0].stop <= start:
            parts.pop(0)
        cut = next((part for part in parts if part.start < end < part.stop), None)
        if cut is not None:
            end = cut.start if cut.start > start else cut.stop
        found.append(slice(start, end))
        start = end
    return found
