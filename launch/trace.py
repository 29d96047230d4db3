"""A recorded run's arrivals: reading them, and simulating in their order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from launch.arrivals import Turn
from launch.rundir import RunDir, read_rows
from psserver.errors import ConfigurationError


@dataclass(frozen=True)
class ArrivalRow:
    """A row of arrivals.jsonl: a step of a worker that was judged.

    update:  the version it helped to make; the newest one there was if it was refused.
    version: at which it was computed.
    fresh:   the worker's recurrent state began anew with it.
    refused: why it was not applied; None when it was.
    curvature: what the worker measured of the Hessian with it; None when it did not.
    distance:  what it found by a line search with it; None when it did not.
    """

    update: int
    worker: int
    step: int
    version: int
    fresh: bool
    refused: str | None
    curvature: tuple[float, float] | None = None
    distance: float | None = None


def read_arrivals(path: Path) -> list[ArrivalRow]:
    """The rows of a run's folder or of its arrivals.jsonl, in order.

    Raises ConfigurationError when there are none, or one is of another form.
    """
    file = RunDir(path).arrivals if path.is_dir() else path
    rows = [_row(file, number, row) for number, row in enumerate(read_rows(file), start=1)]
    if not rows:
        raise ConfigurationError(f"{file}: expected the arrivals of a run, found none")
    return rows


def _row(file: Path, number: int, row: dict[str, Any]) -> ArrivalRow:
    names = [field.name for field in fields(ArrivalRow) if field.name not in ("curvature", "distance")]
    counts = (row.get(name) for name in ("update", "worker", "step", "version"))
    whole = all(isinstance(count, int) and count >= 0 for count in counts)
    if not whole or not isinstance(row.get("fresh"), bool) or not isinstance(row.get("refused", ""), str | None):
        raise ConfigurationError(f"{file}, line {number}: expected {', '.join(names)}, got {row}")
    where = f"{file}, line {number}"
    curvature, distance = _curvature(where, row.get("curvature")), _distance(where, row.get("distance"))
    return ArrivalRow(**{name: row[name] for name in names}, curvature=curvature, distance=distance)


def _curvature(where: str, measured: object) -> tuple[float, float] | None:
    if measured is None:
        return None
    if not isinstance(measured, list) or len(measured) != 2 or not all(isinstance(value, float) for value in measured):
        raise ConfigurationError(f"{where}: expected a curvature of two numbers, got {measured}")
    return measured[0], measured[1]


def _distance(where: str, searched: object) -> float | None:
    if searched is None or (isinstance(searched, float) and 0.0 < searched < math.inf):
        return searched
    raise ConfigurationError(f"{where}: expected a distance above 0, got {searched}")


class Trace:
    """The workers push in the recorded order, the recorded steps, at the recorded versions; refused rows are left out.

    Raises ConfigurationError where that cannot be done with these workers and updates.
    """

    def __init__(self, path: Path, workers: int, updates: int) -> None:
        self._rows = [row for row in read_arrivals(path) if row.refused is None]
        self._workers = workers
        self._turns = 0
        _check(path, self._rows, workers, updates)
        self._pulls: dict[int, list[int]] = {}
        for row in self._rows:
            self._pulls.setdefault(row.version, []).append(row.worker)

    def started(self, worker: int) -> None:
        """Nothing: the order is known."""

    def left(self, worker: int) -> None:
        """Nothing: who pushes is known."""

    def turn(self, version: int) -> Turn | None:
        """The push that made version + 1 in the recorded run; None after the last, or when one was refused here."""
        if version != self._turns or version >= len(self._rows):
            return None
        self._turns += 1
        row = self._rows[version]
        return Turn(row.worker, tuple(self._pulls.pop(version, ())), row.step, row.version)

    def seconds(self, version: int) -> float:
        """M updates are made a second."""
        return version / self._workers


def _check(path: Path, rows: Sequence[ArrivalRow], workers: int, updates: int) -> None:
    where = f"simulate.trace {path}"
    if len(rows) < updates:
        raise ConfigurationError(
            f"{where}: expected an arrival for each of the {updates} updates, got {len(rows)}; "
            f"set train.updates={len(rows)}"
        )
    latest: dict[int, int] = {}
    for update, row in enumerate(rows, start=1):
        if row.update != update:
            raise ConfigurationError(
                f"{where}: expected one arrival an update, as an asynchronous run records them, got update "
                f"{row.update} after {update - 1}"
            )
        if row.worker >= workers:
            raise ConfigurationError(
                f"{where}, update {update}: expected a worker below {workers}, got {row.worker}; set train.workers"
            )
        if not latest.get(row.worker, 0) <= row.version < update:
            raise ConfigurationError(
                f"{where}, update {update}: expected a version from {latest.get(row.worker, 0)} to {update - 1}, "
                f"got {row.version}"
            )
        latest[row.worker] = update
