"""What a run left behind, as arrays: finished, killed or still running."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from launch.rundir import RunDir, read_rows, read_summary
from psserver.errors import ConfigurationError

Numbers: TypeAlias = NDArray[np.float64]
_MOST_MARKS = 40
_BESIDE = "total_momentum_"  # and the name of an estimator that steers nothing


@dataclass(frozen=True)
class Pushes:
    """The pushes of a run, each array [pushes].

    update: the one it helped to make, or the newest one when it was refused.   seconds: when that was made.
    staleness: updates between the version it was computed at and its use.   refused: why, None when it was applied.
    """

    update: Numbers
    seconds: Numbers
    worker: Numbers
    staleness: Numbers
    refused: tuple[str | None, ...]


@dataclass(frozen=True)
class History:
    """One run's records. What was not measured is NaN in every array.

    name: how the run is called beside others.   configuration: the experiment, as written in the run's folder.
    """

    path: Path
    name: str
    rows: tuple[dict[str, Any], ...]
    arrivals: tuple[dict[str, Any], ...]
    evaluations: tuple[dict[str, Any], ...]
    events: tuple[dict[str, Any], ...]
    written: dict[str, Any]
    configuration: dict[str, Any]

    def column(self, name: str) -> Numbers:
        """One column of metrics.jsonl, [rows]."""
        return _floats(row.get(name) for row in self.rows)

    @cached_property
    def updates(self) -> Numbers:
        """The update of each row, [rows]."""
        return self.column("update")

    @cached_property
    def finished(self) -> bool:
        """Whether the run came to write its summary."""
        return bool(self.written)

    @cached_property
    def beside(self) -> dict[str, str]:
        """Estimators of total momentum that steered nothing: their column of metrics.jsonl -> their name."""
        columns = {name: None for row in self.rows for name in row if name.startswith(_BESIDE)}
        return {column: column.removeprefix(_BESIDE) for column in columns}

    def evaluation(self, name: str) -> tuple[Numbers, Numbers, Numbers]:
        """Updates and seconds at which the evaluator reported `name`, and its values, each [evaluations]."""
        found = [row for row in self.evaluations if isinstance(row.get(name), int | float)]
        updates, seconds, values = (_floats(row.get(key) for row in found) for key in ("update", "seconds", name))
        return updates, seconds, values

    @cached_property
    def judged(self) -> tuple[dict[str, Any], ...]:
        """A row for every push that was judged; of a run that kept no arrivals, for the updates of single workers."""
        return self.arrivals or tuple(row for row in self.rows if row.get("worker") is not None)

    @cached_property
    def pushes(self) -> Pushes:
        """Every push that was judged, in order."""
        rows = self.judged
        update, worker, version = (_floats(row.get(name) for row in rows) for name in ("update", "worker", "version"))
        refused = tuple(row.get("refused") for row in rows)
        applied = np.array([code is None for code in refused], dtype=bool)
        return Pushes(
            update=update,
            seconds=self.seconds_at(update),
            worker=worker,
            staleness=update - version - applied,
            refused=refused,
        )

    @cached_property
    def knows_refused(self) -> bool:
        """Whether the arrivals tell of refused pushes; those of older runs do not."""
        return any("refused" in row for row in self.arrivals)

    def seconds_at(self, update: Numbers) -> Numbers:
        """Seconds at which an update was made; the first one's before it, the last one's after it."""
        return np.interp(update, self.updates, self.column("seconds")) if len(self.rows) else np.zeros(len(update))

    def update_at(self, seconds: Numbers) -> Numbers:
        """The update that was the newest one then, between two updates a fraction."""
        return np.interp(seconds, self.column("seconds"), self.updates) if len(self.rows) else np.zeros(len(seconds))

    @cached_property
    def evaluated(self) -> tuple[str, ...]:
        """Names of what the evaluator reported, "accuracy" first."""
        names = {name: None for row in self.evaluations for name in row if name not in ("update", "seconds")}
        return tuple(sorted(names, key=lambda name: (name != "accuracy", name != "loss", name)))

    def marks(self, kind: str) -> Numbers:
        """Updates at which events of a kind happened; none when there are too many to mark."""
        seconds = _floats(event.get("seconds") for event in self.events if event.get("kind") == kind)
        if not len(seconds) or not len(self.rows) or len(seconds) > _MOST_MARKS:
            return np.empty(0)
        return self.update_at(seconds)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The summary as written; of an unfinished run, what its rows tell."""
        if self.written:
            return self.written
        train = self.configuration.get("train", {})
        known = {
            "updates": int(self.updates[-1]) if len(self.rows) else 0,
            "seconds": float(self.column("seconds")[-1]) if len(self.rows) else None,
            "workers": train.get("workers") if isinstance(train, dict) else None,
            "final_train_loss": _mean(self.column("loss")[-100:]),
            "best_eval": self._best(),
            "momentum_min": _least(self.column("momentum")),
            "mean_staleness": _mean(self.column("staleness")),
            "mean_total_momentum": _mean(self.column("total_momentum")),
            "workers_lost": sum(event.get("kind") == "lost" for event in self.events),
            "reason": "unfinished",
        }
        return {name: value for name, value in known.items() if value is not None}

    def _best(self) -> float | None:
        for name, best in (("accuracy", np.max), ("loss", np.min)):
            values = self.evaluation(name)[2]
            if len(values):
                return float(best(values))
        return None


def load_history(path: Path, name: str | None = None) -> History:
    """Read a run's folder. Raises ConfigurationError when it holds no run, or a damaged record."""
    places = RunDir(path)
    if not places.metrics.is_file() and not places.experiment.is_file():
        raise ConfigurationError(f"{path}: expected a run's folder, found neither metrics.jsonl nor experiment.toml")
    try:
        text = places.experiment.read_text(encoding="utf-8") if places.experiment.is_file() else ""
        configuration = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{places.experiment}: expected TOML: {error}") from error
    return History(
        path=path,
        name=name or path.resolve().name,
        rows=tuple(row for row in read_rows(places.metrics) if isinstance(row.get("update"), int)),
        arrivals=tuple(row for row in read_rows(places.arrivals) if isinstance(row.get("update"), int)),
        evaluations=tuple(read_rows(places.evaluations)),
        events=tuple(read_rows(places.events)),
        written=read_summary(places.summary),
        configuration=configuration,
    )


def load_histories(paths: Sequence[Path]) -> list[History]:
    """Several runs, each with a name of its own: the folder's, with its parent's where two are alike."""
    names = [path.resolve().name for path in paths]
    unique = [
        name if names.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        for name, path in zip(names, paths, strict=True)
    ]
    return [load_history(path, name) for path, name in zip(paths, unique, strict=True)]


def smoothed(values: Numbers, window: int) -> Numbers:
    """Mean of the last `window` values (fewer at the start) over those that were measured; NaN where none was."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    number = counts[last] - counts[first]
    return np.where(number > 0, (sums[last] - sums[first]) / np.maximum(number, 1), np.nan)


def _floats(values: Any) -> Numbers:
    return np.array([value if isinstance(value, int | float) else math.nan for value in values], dtype=np.float64)


def _mean(values: Numbers) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _least(values: Numbers) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.min()) if len(known) else None
