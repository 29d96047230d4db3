"""Follows a run's records and writes them as TensorBoard events, while the run goes on or later."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import orjson
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from launch.rundir import RunDir

_TAGS = {
    "loss": "train/loss",
    "gradient_norm": "train/gradient_norm",
    "learning_rate": "tuner/learning_rate",
    "momentum": "momentum/algorithmic",
    "target_momentum": "momentum/target",
    "total_momentum": "momentum/total",
    "pull": "momentum/pull",
    "staleness": "server/staleness",
}
_BESIDE = "total_momentum_"  # and the name of an estimator that steers nothing
_PLAIN = ("update", "seconds")


class Follower:
    """Writes into `tensorboard/` whatever the run has recorded since the last `step()`.

    A new follower starts a new event file from the first row, with the mark that tells TensorBoard to forget what
    an earlier file said; it does the same when the records are replaced under it, because the server came back
    from a checkpoint. So every curve stays whole.

    every: updates between two points of metrics.jsonl (1: all of them).
    """

    def __init__(self, run_dir: Path, every: int = 1) -> None:
        places = RunDir(run_dir)
        places.tensorboard.mkdir(parents=True, exist_ok=True)
        self._every = every
        self._tails = (_Tail(places.metrics), _Tail(places.evaluations))
        self._start = time.time()
        name = f"events.out.tfevents.{int(self._start)}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        self._file = (places.tensorboard / name).open("wb")
        self._writer = RecordWriter(self._file)
        self._put(Event(wall_time=self._start, file_version="brain.Event:2"))
        self._forget()

    def step(self) -> int:
        """Write what is new; how many points that was."""
        metrics, evaluations = self._tails
        if metrics.replaced() or evaluations.replaced():
            self._tails = metrics, evaluations = _Tail(metrics.path), _Tail(evaluations.path)
            self._forget()
        points = 0
        for row in metrics.rows():
            if row["update"] % self._every == 0:
                beside = {
                    f"momentum/{n.replace('_momentum_', ' ')}": v for n, v in row.items() if n.startswith(_BESIDE)
                }
                points += self._points(row, {tag: row.get(name) for name, tag in _TAGS.items()} | beside)
        for row in evaluations.rows():
            found = {f"evaluation/{name}": value for name, value in row.items() if name not in _PLAIN}
            points += self._points(row, found)
        self._file.flush()
        return points

    def close(self) -> None:
        """Write what is left and close the file."""
        try:
            self.step()
        finally:
            self._file.close()

    def _points(self, row: dict[str, Any], values: dict[str, Any]) -> int:
        known = {tag: float(value) for tag, value in values.items() if isinstance(value, int | float)}
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in known.items()]
        moment = self._start + float(row.get("seconds") or 0.0)
        self._put(Event(wall_time=moment, step=row["update"], summary=Summary(value=scalars)))
        return len(known)

    def _forget(self) -> None:
        self._put(Event(wall_time=self._start, step=0, session_log=SessionLog(status=SessionLog.START)))

    def _put(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())


class _Tail:
    """Reads the whole lines that a file has gained."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._identity: int | None = None

    def replaced(self) -> bool:
        """Whether the file that was read from is gone: a resumed run writes its records anew up to a checkpoint."""
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return False
        return now.st_size < self._offset or self._identity not in (None, now.st_ino)

    def rows(self) -> list[dict[str, Any]]:
        """The new rows; a line that is still being written is left for later."""
        try:
            with self.path.open("rb") as file:
                self._identity = os.fstat(file.fileno()).st_ino
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        rows = [_row(line) for line in whole.splitlines()]
        return [row for row in rows if isinstance(row.get("update"), int)]


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}


def follow(run_dir: Path, done: threading.Event, every: int = 1, seconds: float = 2.0) -> None:
    """Keep a run's event file up to date until `done` is set, then write the rest."""
    follower = Follower(run_dir, every)
    try:
        while not done.wait(seconds):
            follower.step()
    finally:
        follower.close()
