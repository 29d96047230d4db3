"""Who may start to compute: holds replies back for bounded staleness and for synchronous rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from psserver.members import Member
from psserver.metrics import Arrival
from psserver.options import ServerOptions


@dataclass(frozen=True)
class Contribution:
    """One worker's push to a synchronous round; the gradient stays in the worker's memory until the round closes."""

    arrival: Arrival
    loss: float
    gradient: Tensor


class Gate:
    """Members that wait for parameters, and the synchronous round that is being collected.

    Bounded staleness s: a worker starts at version t only if, for each gradient under way (its own among them,
    n in all) that was started at v, t − v + n − 1 ≤ s: even if every other gradient arrives first, none is then
    staler than s. Synchronous: work starts once all workers are there, and a round closes when nobody computes.
    `computing` gives the versions at which workers compute; it is asked only where that matters, so that thousands of
    workers without a bound cost nothing here.
    """

    def __init__(self, options: ServerOptions, workers: int) -> None:
        self._bound = options.max_staleness
        self.synchronous = options.mode == "synchronous"
        self._missing = workers if self.synchronous else 0
        self._queue: list[Member] = []
        self._round: dict[int, Contribution] = {}

    def holds(self, member: Member) -> bool:
        """The member's reply is held back."""
        return member in self._queue

    def enter(self, member: Member) -> None:
        """The member waits for parameters."""
        if member not in self._queue:
            self._queue.append(member)

    def forget(self, member: Member) -> None:
        """The member is gone or starts anew; what it contributed to the round stays."""
        self._queue = [other for other in self._queue if other is not member]

    def contribute(self, contribution: Contribution) -> None:
        """Add a push to the round."""
        self._round[contribution.arrival.worker] = contribution

    def close_round(self, computing: Callable[[], Sequence[int]]) -> list[Contribution]:
        """The contributions in the order of worker numbers, if nobody computes any more; else nothing."""
        if not self._round or computing():
            return []
        closed = [self._round[number] for number in sorted(self._round)]
        self._round = {}
        return closed

    def next_ready(self, version: int, computing: Callable[[], Sequence[int]]) -> Member | None:
        """Take the next member out that may start at `version` beside those computing at these versions."""
        if self._missing and len(self._queue) >= self._missing:
            self._missing = 0
        for member in self._queue:
            waits_for_round = self.synchronous and (self._missing > 0 or member.number in self._round)
            if not waits_for_round and self._within_bound(version, computing):
                self._queue.remove(member)
                return member
        return None

    def take_all(self) -> list[Member]:
        """Take everybody out: the run is over."""
        waiting, self._queue = self._queue, []
        return waiting

    def _within_bound(self, version: int, computing: Callable[[], Sequence[int]]) -> bool:
        if self._bound is None:
            return True
        under_way = computing()
        return version - min([*under_way, version]) + len(under_way) <= self._bound


def mean_gradient(contributions: Sequence[Contribution]) -> Tensor:
    """Mean of the gradients (float32 [N]), summed in the order given, which makes a round reproducible."""
    total = contributions[0].gradient.clone()
    for contribution in contributions[1:]:
        total.add_(contribution.gradient)
    return total.div_(len(contributions)) if len(contributions) > 1 else total


def mean_curvature(arrivals: Sequence[Arrival]) -> tuple[float, float] | None:
    """Mean of the curvatures that were measured with these pushes; None if there were none."""
    measured = [arrival.curvature for arrival in arrivals if arrival.curvature is not None]
    if not measured:
        return None
    return sum(h_max for h_max, _ in measured) / len(measured), sum(h_mean for _, h_mean in measured) / len(measured)


def mean_distance(arrivals: Sequence[Arrival]) -> float | None:
    """Mean of the distances that were searched for with these pushes; None if there were none."""
    searched = [arrival.distance for arrival in arrivals if arrival.distance is not None]
    return sum(searched) / len(searched) if searched else None


def all_finite(gradient: Tensor) -> bool:
    """Whether every value is finite; one pass, and a second one only when the sum of squares overflows."""
    total = float(torch.dot(gradient, gradient))
    return total < float("inf") or bool(torch.isfinite(gradient).all())
