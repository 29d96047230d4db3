"""Arrival processes: which simulated worker pushes next, and when; `[simulate]` chooses one."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from launch.experiment import SimulateOptions


@dataclass(frozen=True)
class Turn:
    """One step of a simulation: `worker` pushes what it computed.

    pulls:   workers that ask for the newest version first.
    step:    number of the push; None for the worker's next.
    version: at which it must have been computed; None for any.
    """

    worker: int
    pulls: tuple[int, ...] = ()
    step: int | None = None
    version: int | None = None


class Arrivals(Protocol):
    """An arrival process: asked for one turn after another, told who starts to compute and who leaves."""

    def started(self, worker: int) -> None:
        """The worker was given a version and computes from now on. One that was not there before is there now."""

    def left(self, worker: int) -> None:
        """The worker is there no more. Workers come in the order of their numbers, and leave in the reverse order."""

    def turn(self, version: int) -> Turn | None:
        """The next turn, when `version` is the newest; None when there are no more."""

    def seconds(self, version: int) -> float:
        """Virtual time when `version` is the newest."""


class _Rate:
    """Virtual time when M workers make M updates a second, and M may change."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._since = (0, 0.0)
        self._version = 0

    def started(self, worker: int) -> None:
        """The order does not depend on it, unless the worker is new."""
        if worker >= self.workers:
            self._change(worker + 1)

    def left(self, worker: int) -> None:
        """One less."""
        self._change(worker)

    def seconds(self, version: int) -> float:
        """M updates are made a second."""
        self._version = version
        start, at = self._since
        return at + (version - start) / self.workers

    def _change(self, workers: int) -> None:
        self._since = (self._version, self.seconds(self._version))
        self.workers = workers


class InTurn(_Rate):
    """Each worker in turn: round-robin, or at the newest version.

    Round-robin staleness is M − 1 from the M-th push on, also after a change of M. `workers`: at first.
    """

    def __init__(self, workers: int, *, newest: bool) -> None:
        super().__init__(workers)
        self._newest = newest
        self._next = 0

    def turn(self, version: int) -> Turn:
        """The next worker."""
        self._version = version
        worker = self._next if self._next < self.workers else 0
        self._next = (worker + 1) % self.workers
        return Turn(worker, pulls=(worker,) if self._newest else ())


class Drawn(_Rate):
    """A worker drawn uniformly at random for each push: staleness is geometric with mean M − 1. `workers`: at first.

    Source: Mitliagkas et al. (2016), Asynchrony begets momentum.
    """

    def __init__(self, workers: int, seed: int) -> None:
        super().__init__(workers)
        self._random = np.random.default_rng([seed, 0x5EED])

    def turn(self, version: int) -> Turn:
        """Anybody."""
        self._version = version
        return Turn(int(self._random.integers(self.workers)))


class Queue:
    """Workers with service times of a gamma distribution of shape k; who is done first pushes first.

    A worker starts when it is given a version. Its first service time is what remains of one under way, so that the
    process is stationary from the start (for k → ∞ the workers are then spread evenly over a second); one that comes
    later begins a whole one. `means`: mean service time of each worker in seconds, for services that begin after the
    first turn at version `means_from`; until then every mean is 1.
    """

    def __init__(self, means: list[float], shape: float, seed: int, means_from: int = 0) -> None:
        self._means, self._shape, self._means_from = means, shape, means_from
        self._version = 0
        self._random = np.random.default_rng([seed, 0x6A33A])
        self._queue: list[tuple[float, int, int]] = []
        self._fresh = [True] * len(means)
        self._now = 0.0
        self._count = 0

    def started(self, worker: int) -> None:
        """Draw its service time; of those that end at the same time the first to start is first."""
        self._count += 1
        heapq.heappush(self._queue, (self._now + self._service(worker), self._count, worker))

    def left(self, worker: int) -> None:
        """Forget what it was at."""
        self._queue = [entry for entry in self._queue if entry[2] != worker]
        heapq.heapify(self._queue)

    def turn(self, version: int) -> Turn | None:
        """The worker that is done next; time moves on to that moment."""
        self._version = version
        if not self._queue:
            return None
        self._now, _, worker = heapq.heappop(self._queue)
        return Turn(worker)

    def seconds(self, version: int) -> float:
        """The time of the last event."""
        return self._now

    def _service(self, worker: int) -> float:
        mean = self._means[worker] if self._version >= self._means_from else 1.0
        scale = mean / self._shape
        first, self._fresh[worker] = self._fresh[worker], False
        if not first or self._now > 0:
            return float(self._random.gamma(self._shape, scale))
        # Time is met in a service in proportion to its length (gamma of shape k + 1), and evenly within it.
        return float(self._random.random() * self._random.gamma(self._shape + 1.0, scale))


def service_means(options: SimulateOptions, workers: int) -> list[float]:
    """Mean service time of each worker, in seconds."""
    slow = options.stragglers if options.staleness == "stragglers" else 0
    return [options.slowdown] * slow + [1.0] * (workers - slow)
