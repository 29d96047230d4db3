"""A fair race: every method is tuned on its grid with one seed, and its best setting runs with all seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from launch.experiment import Experiment
from launch.lab.contenders import Contender, Settings
from launch.lab.finding import LEAST_SEEDS, Lab, Scale
from launch.lab.points import Outcome, Point
from launch.lab.speedup import lowest, speedup, updates_to
from launch.lab.workloads import Workload
from launch.overrides import Override

SEEDS = tuple(range(1, LEAST_SEEDS + 1))


@dataclass(frozen=True)
class Arena:
    """A workload on a number of workers: one without staleness, several in turn, unless `settings` say otherwise.

    settings: of every run here; those of a contender come after them.   label: what it is called in lines of progress.
    """

    workload: Workload
    workers: int = 1
    settings: Settings = field(default_factory=dict)
    label: str = ""

    def experiment(self, settings: Settings, seed: int, updates: int | None = None) -> Experiment:
        """The workload with these settings; `updates` other than its own for a shorter run."""
        base = self.workload.experiment(self.workers)
        every = {**self.settings, **settings, "train.seed": seed}
        if updates is not None:
            every["train.updates"] = updates
        return base.with_settings(*(Override(tuple(key.split(".")), value, key) for key, value in every.items()))

    def point(self, contender: Contender, chosen: Settings, seed: int, updates: int | None = None) -> Point:
        """A run of one of the contender's candidates."""
        where = self.label or f"{self.workers} workers"
        name = f"{contender.label} ({contender.words(chosen)}), {where}, seed {seed}"
        if updates is not None and updates != self.workload.updates:
            name += f", {updates} updates"
        return Point(name, self.experiment({**contender.settings, **chosen}, seed, updates))

    def grid(self, contenders: Sequence[Contender]) -> list[Point]:
        """What tuning computes: every candidate with the first seed."""
        return [self.point(one, chosen, SEEDS[0]) for one in contenders for chosen in one.candidates]


@dataclass(frozen=True)
class Tuned:
    """A contender with the candidate whose smoothed training loss came lowest, and all that were tried."""

    contender: Contender
    chosen: Settings
    tried: tuple[tuple[Settings, Outcome], ...] = field(repr=False)


@dataclass(frozen=True)
class Entry:
    """A contender's runs with one setting, over seeds. workers: of the arena."""

    tuned: Tuned
    outcomes: tuple[Outcome, ...] = field(repr=False)
    window: int
    workers: int

    @property
    def label(self) -> str:
        """The contender's name."""
        return self.tuned.contender.label

    @property
    def lows(self) -> list[float]:
        """Lowest smoothed training loss of each seed; infinity where there is none."""
        return [lowest(outcome.losses, self.window) for outcome in self.outcomes]

    def speedups(self, over: Entry) -> list[float]:
        """How many times fewer updates than `over`, seed by seed, to the lowest loss that both reach."""
        pairs = zip(over.outcomes, self.outcomes, strict=True)
        return [speedup(theirs.losses, ours.losses, self.window) for theirs, ours in pairs]

    def updates(self, levels: Sequence[float]) -> list[int | None]:
        """Updates of each seed to its level."""
        pairs = zip(self.outcomes, levels, strict=True)
        return [updates_to(outcome.losses, level, self.window) for outcome, level in pairs]

    def seconds(self) -> float:
        """Mean real seconds of a run."""
        return float(np.mean([outcome.seconds for outcome in self.outcomes]))

    def mean_of(self, name: str) -> float:
        """Mean over seeds of a number of the summaries; NaN where none has it."""
        found = [outcome.summary.get(name) for outcome in self.outcomes]
        known = [float(value) for value in found if value is not None]
        return float(np.mean(known)) if known else math.nan


def common(one: Entry, other: Entry) -> list[float]:
    """The lowest smoothed loss that both reach, seed by seed."""
    return [max(pair) for pair in zip(one.lows, other.lows, strict=True)]


def tune(lab: Lab, arena: Arena, contenders: Sequence[Contender]) -> list[Tuned]:
    """Run every candidate of every contender with the first seed; the best of each by lowest smoothed training loss."""
    outcomes = iter(lab.points(arena.grid(contenders)))
    tuned = []
    for contender in contenders:
        tried = tuple((chosen, next(outcomes)) for chosen in contender.candidates)
        best, _ = min(tried, key=lambda pair: lowest(pair[1].losses, arena.workload.window))
        tuned.append(Tuned(contender, best, tried))
    return tuned


def race(lab: Lab, arena: Arena, tuned: Sequence[Tuned]) -> dict[str, Entry]:
    """Run every contender's chosen candidate with all seeds; label -> entry, in order."""
    return races(lab, [(arena, tuned)])[0]


def races(
    lab: Lab, entrants: Sequence[tuple[Arena, Sequence[Tuned]]], seeds: int = len(SEEDS)
) -> list[dict[str, Entry]]:
    """A race in each of several arenas, with seeds from 1 on; the runs of all are computed together."""
    every = range(1, seeds + 1)
    points = [a.point(one.contender, one.chosen, seed) for a, tuned in entrants for one in tuned for seed in every]
    outcomes = iter(lab.points(points))
    return [
        {
            one.contender.label: Entry(one, tuple(next(outcomes) for _ in every), arena.workload.window, arena.workers)
            for one in tuned
        }
        for arena, tuned in entrants
    ]


def work(arena: Arena, contenders: Sequence[Contender]) -> list[tuple[Experiment, int]]:
    """The experiments of tuning and racing, with the gradients each computes at most."""
    grid = [point.experiment for point in arena.grid(contenders)]
    further = [arena.experiment(one.settings, seed) for one in contenders for seed in SEEDS[1:]]
    return [(experiment, arena.workload.updates) for experiment in (*grid, *further)]


def counted(items: Sequence[tuple[Experiment, int]], scale: Scale, minutes: int) -> str:
    """How much that is, in words. minutes: measured at the small scale on two cores."""
    words = f"at most {len(items)} runs, {sum(gradients for _, gradients in items):,} gradients"
    return f"{words}; about {minutes} minutes on two cores" if scale == "small" else words


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers; NaN if any is missing."""
    return math.exp(float(np.mean(np.log(values)))) if values and all(value > 0 for value in values) else math.nan


def all_agree(values: Sequence[float]) -> bool | None:
    """Whether every seed has a speedup above 1: True, none: False, otherwise (or where one is missing) None."""
    if any(math.isnan(value) for value in values):
        return None
    above = [value > 1 for value in values]
    return True if all(above) else None if any(above) else False


def find(tuned: Sequence[Tuned], label: str) -> Tuned:
    """The one with this label."""
    return next(one for one in tuned if one.contender.label == label)
