"""Successive halving: all candidates for a short while, the better ones for longer, the best of them for the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from launch.lab.comparison import SEEDS, Arena, Tuned
from launch.lab.contenders import Contender, Settings
from launch.lab.finding import Lab
from launch.lab.points import Outcome, Point
from launch.lab.speedup import lowest, smoothed


@dataclass(frozen=True)
class Rung:
    """A run's length as part of the whole, and how many candidates run so long: a part of all, but no fewer.

    seeds: with how many each runs.
    """

    length: float
    part: float
    least: int
    seeds: int = 1

    def updates(self, arena: Arena) -> int:
        """The length in updates."""
        return max(round(arena.workload.updates * self.length), arena.workload.window)

    def candidates(self, count: int) -> int:
        """How many of `count` run so long."""
        return min(max(round(self.part * count), self.least), count)


# A setting at the edge of what is stable may be lucky with one seed, so the last choice is made with all of them.
_LAST = Rung(1.0, 0.0, 2, len(SEEDS))
RUNGS = (Rung(0.25, 1.0, 1), Rung(0.5, 0.25, 4), _LAST)
LATE = (Rung(0.5, 1.0, 1), Rung(1.0, 0.15, 4), _LAST)
"""Where something changes after a third of the run, which the shortest run must have seen."""
SHORT = (Rung(0.25, 1.0, 1), Rung(1.0, 0.0, 1))
"""For grids that are small because they lie about a setting that is known to be good."""

COUNTED = 0.8
"""Part of the whole budget within which a loss must be reached to count."""


def halve(lab: Lab, entrants: Sequence[tuple[Arena, Contender, Sequence[Rung]]]) -> list[Tuned]:
    """Tune every contender in its arena; each rung's runs are computed together.

    A short run must be the beginning of the longer one, as it is with a constant target. The best of a rung have the
    lowest smoothed loss; on the last one, within the part of the budget that counts. What diverged comes last. Of what
    was tried, the first seed's run is kept.
    """
    left = [list(contender.candidates) for _, contender, _ in entrants]
    tried: list[dict[str, tuple[Settings, Outcome]]] = [{} for _ in entrants]
    for number in range(max((len(rungs) for _, _, rungs in entrants), default=0)):
        active = [k for k, (_, _, rungs) in enumerate(entrants) if number < len(rungs)]
        points = []
        for k in active:
            arena, contender, rungs = entrants[k]
            rung = rungs[number]
            left[k] = left[k][: rung.candidates(len(contender.candidates))]
            updates, seeds = rung.updates(arena), SEEDS[: rung.seeds]
            points += [arena.point(contender, chosen, seed, updates) for chosen in left[k] for seed in seeds]
        outcomes = iter(lab.points(points))
        for k in active:
            arena, _, rungs = entrants[k]
            part = COUNTED if number == len(rungs) - 1 else 1.0
            found = [(chosen, [next(outcomes) for _ in range(rungs[number].seeds)]) for chosen in left[k]]
            found.sort(key=lambda pair: _rank(pair[1], arena, part))
            left[k] = [chosen for chosen, _ in found]
            tried[k] |= {repr(chosen): (chosen, runs[0]) for chosen, runs in found}
    return [Tuned(contender, left[k][0], tuple(tried[k].values())) for k, (_, contender, _) in enumerate(entrants)]


def lengths(arena: Arena, count: int, rungs: Sequence[Rung]) -> list[int]:
    """Updates of every run that tuning `count` candidates takes."""
    return [rung.updates(arena) for rung in rungs for _ in range(rung.candidates(count) * rung.seeds)]


def possible(arena: Arena, contender: Contender, rungs: Sequence[Rung]) -> list[Point]:
    """Every point that tuning and racing could come to."""
    every = {rung.updates(arena) for rung in rungs} | {arena.workload.updates}
    return [
        arena.point(contender, chosen, seed, updates)
        for chosen in contender.candidates
        for updates in sorted(every)
        for seed in (SEEDS if updates == arena.workload.updates else SEEDS[:1])
    ]


def diverged(outcome: Outcome, window: int) -> bool:
    """Whether a run ended early or in numbers that are not finite, or worse than it began (smoothed losses)."""
    means = smoothed(outcome.losses, window)[window - 1 :]
    return outcome.diverged or len(means) == 0 or not bool(np.isfinite(means[-1])) or bool(means[-1] > means[0])


def _rank(runs: Sequence[Outcome], arena: Arena, part: float) -> tuple[int, float]:
    """Seeds that diverged, and the mean of the lowest losses."""
    window = arena.workload.window
    lows = [lowest(run.losses[: max(round(len(run.losses) * part), window)], window) for run in runs]
    return sum(diverged(run, window) for run in runs), float(np.mean(lows))
