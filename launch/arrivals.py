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
    """An arrival process: asked for one turn after another, told who starts to compute."""

    def started(self, worker: int) -> None:
        """The worker was given a version and computes from now on."""

    def turn(self, version: int) -> Turn | None:
        """The next turn, when `version` is the newest; None when there are no more."""

    def seconds(self, version: int) -> float:
        """Virtual time when `version` is the newest."""


class InTurn:
    """Each worker in turn: round-robin, or at the newest version.

    Round-robin staleness is M − 1 from the M-th push on.
    """

    def __init__(self, workers: int, *, newest: bool) -> None:
        self._workers, self._newest = workers, newest
        self._next = 0

    def started(self, worker: int) -> None:
        """Nothing: the order is fixed."""

    def turn(self, version: int) -> Turn:
        """The next worker."""
        worker, self._next = self._next, (self._next + 1) % self._workers
        return Turn(worker, pulls=(worker,) if self._newest else ())

    def seconds(self, version: int) -> float:
        """M updates are made a second."""
        return version / self._workers


class Drawn:
    """A worker drawn uniformly at random for each push: staleness is geometric with mean M − 1.

    Source: Mitliagkas et al. (2016), Asynchrony begets momentum.
    """

    def __init__(self, workers: int, seed: int) -> None:
        self._workers = workers
        self._random = np.random.default_rng([seed, 0x5EED])

    def started(self, worker: int) -> None:
        """Nothing: the draws are independent."""

    def turn(self, version: int) -> Turn:
        """Anybody."""
        return Turn(int(self._random.integers(self._workers)))

    def seconds(self, version: int) -> float:
        """M updates are made a second."""
        return version / self._workers


class Queue:
    """Workers with service times of a gamma distribution of shape k; who is done first pushes first.

    A worker starts when it is given a version. Its first service time is what remains of one under way, so that the
    process is stationary from the start (for k → ∞ the workers are then spread evenly over a second). `means`: mean
    service time of each worker in seconds.
    """

    def __init__(self, means: list[float], shape: float, seed: int) -> None:
        self._means, self._shape = means, shape
        self._random = np.random.default_rng([seed, 0x6A33A])
        self._queue: list[tuple[float, int, int]] = []
        self._fresh = [True] * len(means)
        self._now = 0.0
        self._count = 0

    def started(self, worker: int) -> None:
        """Draw its service time; of those that end at the same time the first to start is first."""
        self._count += 1
        heapq.heappush(self._queue, (self._now + self._service(worker), self._count, worker))

    def turn(self, version: int) -> Turn | None:
        """The worker that is done next; time moves on to that moment."""
        if not self._queue:
            return None
        self._now, _, worker = heapq.heappop(self._queue)
        return Turn(worker)

    def seconds(self, version: int) -> float:
        """The time of the last event."""
        return self._now

    def _service(self, worker: int) -> float:
        scale = self._means[worker] / self._shape
        if not self._fresh[worker]:
            return float(self._random.gamma(self._shape, scale))
        self._fresh[worker] = False
        # Time is met in a service in proportion to its length (gamma of shape k + 1), and evenly within it.
        return float(self._random.random() * self._random.gamma(self._shape + 1.0, scale))


def service_means(options: SimulateOptions, workers: int) -> list[float]:
    """Mean service time of each worker, in seconds."""
    slow = options.stragglers if options.staleness == "stragglers" else 0
    return [options.slowdown] * slow + [1.0] * (workers - slow)
