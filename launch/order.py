"""Who takes part in a simulated run, and in which order its workers push: what `[simulate]` chooses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.arrivals import Arrivals, Drawn, InTurn, Queue, service_means
from launch.experiment import Experiment
from launch.trace import Trace
from psserver.errors import ConfigurationError


@dataclass(frozen=True)
class Presence:
    """How many workers there are: `first` until version `change_at`, `last` from there on. None: no change."""

    first: int
    last: int
    change_at: int | None

    @staticmethod
    def of(experiment: Experiment) -> Presence:
        """Of an experiment. Raises ConfigurationError for more workers than it has."""
        options, workers = experiment.simulate, experiment.train.workers
        for name in ("workers_at_first", "workers_at_end"):
            count = getattr(options, name)
            if count > workers:
                raise ConfigurationError(f"simulate.{name}: expected at most {workers} (train.workers), got {count}")
        return Presence(options.workers_at_first or workers, options.workers_at_end or workers, options.change_at)

    def at(self, version: int) -> int:
        """Workers when `version` is the newest."""
        return self.first if self.change_at is None or version < self.change_at else self.last


def make_arrivals(experiment: Experiment) -> Arrivals:
    """The arrival process that `[simulate]` names. Raises ConfigurationError for a trace that does not fit."""
    options, train = experiment.simulate, experiment.train
    first = Presence.of(experiment).first
    match options.staleness:
        case "none" | "round-robin":
            return InTurn(first, newest=options.staleness == "none")
        case "memoryless":
            return Drawn(first, train.seed)
        case "stragglers" if options.stragglers > train.workers:
            raise ConfigurationError(
                f"simulate.stragglers: expected at most {train.workers} (train.workers), got {options.stragglers}"
            )
        case "gamma" | "stragglers":
            return Queue(service_means(options, train.workers), options.shape, train.seed, options.appear_at)
        case "trace":
            if experiment.server.mode == "synchronous":
                raise ConfigurationError("simulate.staleness: expected no 'trace' in synchronous mode")
            if options.change_at:
                raise ConfigurationError("simulate.change_at: expected none with a trace, which has its own workers")
            return Trace(Path(options.trace or ""), train.workers, train.updates)
