"""The numbers behind a report as tidy CSV: every value of every run, one row an observation."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from launch.history import History
from psserver.progress import UpdateRow

_UPDATES = tuple(name for name in UpdateRow.__dataclass_fields__ if name != "beside")
_PUSHES = ("update", "seconds", "worker", "step", "version", "staleness", "fresh", "refused")
_EVALUATIONS = ("update", "seconds", "name", "value")


def write_csv(runs: Sequence[History], page: Path) -> list[Path]:
    """Write NAME.csv (a row an update), NAME-pushes.csv and NAME-evaluations.csv beside the page; their paths.

    Every row begins with the run's name. An empty field was not measured, or is not known of an older run.
    """
    beside = {column: None for run in runs for column in run.beside}
    tables = {
        "": ((*_UPDATES, *beside), ((run.name, row) for run in runs for row in run.rows)),
        "-pushes": (_PUSHES, ((run.name, row) for run in runs for row in _pushes(run))),
        "-evaluations": (_EVALUATIONS, ((run.name, row) for run in runs for row in _evaluations(run))),
    }
    paths = []
    for suffix, (columns, rows) in tables.items():
        path = page.with_name(f"{page.stem}{suffix}.csv")
        _write(path, columns, rows)
        paths.append(path)
    return paths


def _pushes(run: History) -> Iterator[dict[str, Any]]:
    pushes = run.pushes
    for row, seconds, staleness in zip(run.judged, pushes.seconds.tolist(), pushes.staleness.tolist(), strict=True):
        yield row | {"seconds": seconds, "staleness": int(staleness) if staleness == staleness else None}


def _evaluations(run: History) -> Iterator[dict[str, Any]]:
    for row in run.evaluations:
        for name, value in row.items():
            if name not in ("update", "seconds"):
                yield {"update": row.get("update"), "seconds": row.get("seconds"), "name": name, "value": value}


def _write(path: Path, columns: Sequence[str], rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", *columns])
        writer.writerows([name, *(row.get(column) for column in columns)] for name, row in rows)
