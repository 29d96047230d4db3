"""A run's lives: with which settings its server was started and resumed, and which arrivals were judged in each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.experiment import Experiment, experiment_from, load_experiment
from launch.overrides import Override
from launch.rundir import RunDir, read_rows
from launch.trace import ArrivalRow
from psserver.errors import CheckpointError, ConfigurationError


@dataclass(frozen=True)
class Life:
    """One life of a run's server.

    update:     the newest version when it began.
    arrivals:   rows of arrivals.jsonl before its first.
    experiment: the settings in force.
    """

    update: int
    arrivals: int
    experiment: Experiment


def record_life(run_dir: Path, experiment: Experiment, update: int) -> None:
    """Write into lives.jsonl that a life begins at `update`; to be called once what was lost is cut off the record.

    Lives of which no arrival is left are dropped. Raises CheckpointError when it cannot be written.
    """
    places = RunDir(run_dir)
    arrivals = _lines(places.arrivals)
    rows = [row for row in read_rows(places.lives) if row.get("arrivals", arrivals) < arrivals]
    rows.append({"update": update, "arrivals": arrivals, "experiment": experiment.model_dump(mode="json")})
    part = places.lives.with_suffix(".part")
    try:
        part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        os.replace(part, places.lives)
    except OSError as error:
        raise CheckpointError(
            f"{places.lives}: expected to write the settings of this life of the server, got {error.strerror}; "
            "make room and resume the run"
        ) from error


def read_lives(run_dir: Path, settings: Iterable[str | Override] = ()) -> list[Life]:
    """The lives of a run, with `settings` applied to each; of a run that recorded none, one by its experiment.toml.

    The first begins with the first arrival, unless its settings were not recorded, as in runs of earlier versions.
    Raises ConfigurationError.
    """
    settings = list(settings)
    file = RunDir(run_dir).lives
    lives = [_life(row, f"{file}, line {number}", settings) for number, row in enumerate(read_rows(file), start=1)]
    return lives or [Life(0, 0, load_experiment(run_dir, settings))]


def stretches(lives: Sequence[Life], rows: Sequence[ArrivalRow]) -> Iterator[tuple[Life, Sequence[ArrivalRow]]]:
    """Each life with the arrivals that were judged in it; those before the first go with the first."""
    starts = [0, *(life.arrivals for life in lives[1:]), len(rows)]
    for life, start, end in zip(lives, starts, starts[1:], strict=False):
        yield life, rows[start:end]


def changes(before: Experiment, after: Experiment) -> list[str]:
    """The settings in which two experiments differ, as "train.updates=90 (was 60)"."""
    old, new = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    keys = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    return [f"{key}={json.dumps(new.get(key))} (was {json.dumps(old.get(key))})" for key in keys]


def _life(row: dict[str, Any], where: str, settings: list[str | Override]) -> Life:
    update, arrivals, experiment = row.get("update"), row.get("arrivals"), row.get("experiment")
    if not isinstance(update, int) or not isinstance(arrivals, int) or not isinstance(experiment, dict):
        raise ConfigurationError(f"{where}: expected update, arrivals and experiment, got {', '.join(row)}")
    return Life(update, arrivals, experiment_from(experiment, where, settings))


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)
