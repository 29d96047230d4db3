"""A run's folder: where each record lies, and reading records of a run that may be unfinished."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from psserver.errors import ConfigurationError


@dataclass(frozen=True)
class RunDir:
    """The places inside a run's folder."""

    path: Path

    @property
    def experiment(self) -> Path:
        """The resolved experiment."""
        return self.path / "experiment.toml"

    @property
    def metrics(self) -> Path:
        """A row an update."""
        return self.path / "metrics.jsonl"

    @property
    def arrivals(self) -> Path:
        """The order in which pushes were applied."""
        return self.path / "arrivals.jsonl"

    @property
    def lives(self) -> Path:
        """The settings of each life of the server, and where it began."""
        return self.path / "lives.jsonl"

    @property
    def evaluations(self) -> Path:
        """A row an evaluation."""
        return self.path / "evaluations.jsonl"

    @property
    def events(self) -> Path:
        """Who joined, left or was lost, and when."""
        return self.path / "events.jsonl"

    @property
    def summary(self) -> Path:
        """The numbers of a finished run."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def logs(self) -> Path:
        """The folder of the processes' logs."""
        return self.path / "logs"


def choose_run_dir(name: str, wanted: Path | None, resume: bool, now: datetime | None = None) -> Path:
    """The folder of a run: the one wanted, else a new `runs/<name>-<date>-<time>`. Nothing is created.

    Raises ConfigurationError when the folder already holds something and `resume` was not said, or when there is
    nothing in it to resume.
    """
    if wanted is None:
        if resume:
            raise ConfigurationError("--resume: say which run, with --run-dir DIR or with its folder as EXPERIMENT")
        stamp = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
        return _unused(Path("runs") / f"{name}-{stamp}")
    if wanted.exists() and not wanted.is_dir():
        raise ConfigurationError(f"--run-dir {wanted}: expected a folder, got a file")
    if resume and not any((wanted / "checkpoints").glob("*.safetensors")):
        raise ConfigurationError(f"--resume: expected a checkpoint in {wanted / 'checkpoints'}, found none")
    if not resume and wanted.exists() and any(wanted.iterdir()):
        raise ConfigurationError(
            f"--run-dir {wanted}: the folder is not empty; say --resume to go on with its run, or name another folder"
        )
    return wanted


def _unused(path: Path) -> Path:
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file; none when it is missing.

    A last line that a killed process left unfinished is passed over. Raises ConfigurationError, with the line's
    number, for a damaged line anywhere else.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = orjson.loads(line)
            except ValueError as error:
                if not line.endswith(b"\n"):
                    return
                raise ConfigurationError(f"{path}, line {number}: expected a JSON object: {error}") from error
            if isinstance(row, dict):
                yield row


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of a run, {} when the run did not get that far."""
    try:
        summary = orjson.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}
