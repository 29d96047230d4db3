"""Points of a sweep: runs that are computed once, in parallel, and found again by what they compute."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from launch.experiment import Experiment
from launch.lab.digest import digest
from launch.lab.hand import write_outcome
from launch.lab.pool import Pool, Work
from launch.lab.progress import Progress
from launch.numbers import duration, shown
from launch.rundir import RunDir, read_rows
from psserver.errors import ConfigurationError

How = Literal["simulate", "train"]


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    name: what people call it.   how: in the simulator, or with real processes on this host.
    """

    name: str
    experiment: Experiment
    how: How = "simulate"

    @cached_property
    def key(self) -> str:
        """Short digest of all that decides the outcome: see `launch.lab.digest`."""
        return digest(self.experiment, self.how)


@dataclass(frozen=True)
class Outcome:
    """What a point came to.

    diverged:    the run ended early, or its losses are no longer finite.
    failure:     why it has no usable result, "" when it has one.
    seconds:     of real time that it took (`summary["seconds"]` are the run's own, virtual in the simulator).
    losses:      training loss of each update, [updates]; shorter if diverged, NaN where it was not finite.
    evaluations: rows of evaluations.jsonl.   path: the run's folder, for `yfps report`.
    """

    point: Point
    diverged: bool
    failure: str
    seconds: float
    summary: dict[str, Any] = field(repr=False)
    losses: NDArray[np.float64] = field(repr=False)
    evaluations: list[dict[str, Any]] = field(repr=False)
    path: Path = field(repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one an update."""
        return list(read_rows(RunDir(self.path).metrics))

    def column(self, name: str) -> NDArray[np.float64]:
        """One column of metrics.jsonl, [updates]; NaN where it was not measured."""
        return np.array([np.nan if row[name] is None else row[name] for row in self.rows()], dtype=np.float64)


def run_points(
    points: Sequence[Point], folder: Path, jobs: int | None = None, show: Callable[[str], None] = print
) -> list[Outcome]:
    """The outcome of every point, in order; those not yet in `folder` are computed, `jobs` at a time (default: cores).

    Each lies in `folder/points/KEY`: `outcome.json` is written last and at once, so a sweep that was killed goes on
    where it stood; a point whose process was lost is tried again. Runs with real processes are computed one at a time,
    after the simulated ones. A run that diverges is an outcome. Raises ConfigurationError when another sweep is at work
    in `folder`, and what stops a task (DataError, TaskError, ...); what was finished until then stays.
    """
    place = folder / "points"
    with alone(place):
        missing = {point.key: point for point in points if not _known(place / point.key / "outcome.json")}
        works = [_prepared(point, place) for point in missing.values()]
        if works:
            _compute(works, jobs, show)
    return [read_outcome(point, place) for point in points]


def read_outcome(point: Point, place: Path) -> Outcome:
    """Read a finished point from `place/KEY`."""
    path = place / point.key
    written = orjson.loads((path / "outcome.json").read_bytes())
    run = RunDir(path / "run")
    losses = [row["loss"] for row in read_rows(run.metrics)]
    numbers = np.array([np.nan if loss is None else loss for loss in losses], dtype=np.float64)
    return Outcome(
        point=point,
        diverged=written["diverged"] or not bool(np.isfinite(numbers).all()),
        failure=written["failure"],
        seconds=written["seconds"],
        summary=written["summary"],
        losses=numbers,
        evaluations=list(read_rows(run.evaluations)),
        path=run.path,
    )


def forget(points: Iterable[Point], folder: Path) -> int:
    """Drop what is known of these points in `folder`, so that they are computed anew; returns how many were known."""
    place = folder / "points"
    with alone(place):
        written = {place / point.key / "outcome.json" for point in points}
        known = [path for path in written if path.is_file()]
        for path in known:
            path.unlink()
    return len(known)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _known(path: Path) -> bool:
    """Whether there is an outcome, other than that the process was lost, which says nothing of the point."""
    return path.is_file() and not orjson.loads(path.read_bytes()).get("lost", False)


def _prepared(point: Point, place: Path) -> Work:
    folder = place / point.key
    folder.mkdir(exist_ok=True)
    point.experiment.write(folder / "experiment.toml")
    return Work(point.name, folder, point.how)


def _compute(works: Sequence[Work], jobs: int | None, show: Callable[[str], None]) -> None:
    # Real processes want the cores for themselves.
    widths = {"simulate": jobs or cores(), "train": 1}
    with Progress(len(works), show) as progress:
        for how, width in widths.items():
            with Pool(width, progress.say) as pool:
                for work, reason in pool.run([work for work in works if work.how == how]):
                    if reason:
                        write_outcome(work.folder, 0.0, f"{reason}; see {work.folder / 'log'}", {}, lost=True)
                    progress.done(_line(work))


def _line(work: Work) -> str:
    """A finished point in a few words."""
    written = orjson.loads((work.folder / "outcome.json").read_bytes())
    loss = written["summary"].get("final_train_loss")
    how = "diverged" if written["diverged"] else f"loss {shown(loss)}"
    return f"{work.name}: {how}, {duration(written['seconds'])}"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold `folder`, so that nobody else computes in it. Raises ConfigurationError when somebody does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigurationError(
                f"{folder}: another sweep is at work in this folder (process {file.read().strip() or 'unknown'}); "
                "wait for its end, or name another folder with --out"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
