"""The run's one record: metrics.jsonl, arrivals.jsonl, evaluations.jsonl, events.jsonl and summary.json."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import orjson

from psserver.progress import UpdateRow

_FLUSH_SECONDS = 0.5
_FILES = ("metrics", "arrivals", "evaluations", "events")


@dataclass(frozen=True)
class Arrival:
    """A push: step `step` of worker `worker`, whose recurrent state began anew with it if `fresh`.

    curvature: what was measured of the Hessian with it, and distance, by a line search: see `psserver.messages.Push`.
    """

    worker: int
    step: int
    fresh: bool = False
    curvature: tuple[float, float] | None = None
    distance: float | None = None


class Record(Protocol):
    """Where a server writes down what happens. `seconds` are since the start of the run."""

    def update(self, row: UpdateRow, arrivals: Sequence[Arrival]) -> None:
        """One update, and the pushes that made it."""

    def refused(self, update: int, version: int, arrival: Arrival, code: str) -> None:
        """A push computed at `version` that was refused when `update` was the newest version; `code` says why."""

    def evaluation(self, update: int, seconds: float, values: dict[str, float]) -> None:
        """What an evaluator found for version `update`."""

    def event(self, seconds: float, kind: str, worker: int | None, text: str) -> None:
        """Something a user wants to know."""

    def summary(self, values: dict[str, Any]) -> None:
        """The end of the run."""

    def flush(self) -> None:
        """Let readers see everything so far."""

    def close(self) -> None:
        """Write out what is left; nothing comes after this."""


class NoRecord:
    """Keeps nothing."""

    def update(self, row: UpdateRow, arrivals: Sequence[Arrival]) -> None:
        """Nothing."""

    def refused(self, update: int, version: int, arrival: Arrival, code: str) -> None:
        """Nothing."""

    def evaluation(self, update: int, seconds: float, values: dict[str, float]) -> None:
        """Nothing."""

    def event(self, seconds: float, kind: str, worker: int | None, text: str) -> None:
        """Nothing."""

    def summary(self, values: dict[str, Any]) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class RunRecord:
    """Lines of JSON in a run directory. A number that is not finite is written as null.

    arrivals.jsonl has a row for each step of a worker that was judged, in order: `update, worker, step, version, fresh,
    refused`. Applied: `update` is the version it helped to make and `refused` null. Refused: `update` is the newest
    version there was and `refused` the refusal's code. A push that carried a measurement has
    `curvature` or `distance` besides. Repetitions, and pushes after the end of the run, have no row.

    resume_at: continue a run from this update; rows of later updates belong to a life of the server that was
    lost, and are cut off.
    """

    def __init__(self, directory: Path, resume_at: int | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._flushed = 0.0
        if resume_at is not None:
            for name in ("metrics", "arrivals", "evaluations"):
                _cut_after(directory / f"{name}.jsonl", resume_at)
        mode = "wb" if resume_at is None else "ab"
        self._files: dict[str, IO[bytes]] = {
            name: (directory / f"{name}.jsonl").open(mode, buffering=1 << 16) for name in _FILES
        }

    def update(self, row: UpdateRow, arrivals: Sequence[Arrival]) -> None:
        """A row of metrics.jsonl, and one of arrivals.jsonl for each push."""
        values = vars(row)
        beside = {f"total_momentum_{name}": value for name, value in row.beside.items()}
        self._write("metrics", {name: value for name, value in values.items() if name != "beside"} | beside)
        for arrival in arrivals:
            self._arrived(row.update, row.version, arrival, None)
        if row.seconds - self._flushed > _FLUSH_SECONDS:
            self._flushed = row.seconds
            self.flush()

    def refused(self, update: int, version: int, arrival: Arrival, code: str) -> None:
        """A row of arrivals.jsonl."""
        self._arrived(update, version, arrival, code)

    def evaluation(self, update: int, seconds: float, values: dict[str, float]) -> None:
        """A row of evaluations.jsonl."""
        own = {"update": update, "seconds": seconds}  # a task may use these names, too
        self._write("evaluations", own | {name: value for name, value in values.items() if name not in own})
        self.flush()

    def event(self, seconds: float, kind: str, worker: int | None, text: str) -> None:
        """A row of events.jsonl."""
        self._write("events", {"seconds": seconds, "kind": kind, "worker": worker, "text": text})
        self.flush()

    def summary(self, values: dict[str, Any]) -> None:
        """Write summary.json, whole or not at all."""
        self.flush()
        temporary = self._directory / "summary.json.part"
        temporary.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2) + b"\n")
        os.replace(temporary, self._directory / "summary.json")

    def flush(self) -> None:
        """Let readers see everything so far."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Write out what is left; nothing comes after this."""
        for file in self._files.values():
            file.close()

    def _arrived(self, update: int, version: int, arrival: Arrival, refused: str | None) -> None:
        worker, step, fresh = arrival.worker, arrival.step, arrival.fresh
        row: dict[str, Any] = {"update": update, "worker": worker, "step": step, "version": version}
        row |= {"fresh": fresh, "refused": refused}
        if arrival.curvature is not None:
            row["curvature"] = arrival.curvature
        if arrival.distance is not None:
            row["distance"] = arrival.distance
        self._write("arrivals", row)

    def _write(self, name: str, row: dict[str, Any]) -> None:
        self._files[name].write(orjson.dumps(row) + b"\n")


def _cut_after(path: Path, update: int) -> None:
    """Drop rows of updates after `update`, and a last line that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            break
        if row["update"] <= update:
            kept.append(line)
    temporary = path.with_suffix(".part")
    temporary.write_bytes(b"".join(line + b"\n" for line in kept))
    os.replace(temporary, path)
