"""Replay: recomputes a recorded run from its arrivals and says where the first bit differs, or that none does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from launch.bits import differing_tensors, first_difference, largest, same_bits, same_number, tensors_not_finite
from launch.lives import Life, changes, read_lives, stretches
from launch.recompute import Computed, Recomputation
from launch.rundir import RunDir, read_rows
from launch.trace import ArrivalRow, read_arrivals
from psserver import load_checkpoint
from psserver.errors import LayoutError
from psserver.gate import all_finite
from psserver.update import Update

COMPARED = ("loss", "gradient_norm", "learning_rate", "momentum", "target_momentum", "total_momentum")


@dataclass(frozen=True)
class Difference:
    """The first thing that came out otherwise: at which update, by whose push, in which field.

    worker, step: None for a synchronous round.   details: the model's tensors that differ, where that is the field.
    """

    update: int
    worker: int | None
    step: int | None
    version: int
    field: str
    recorded: str
    recomputed: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class NotFinite:
    """Where NaN or infinity first appeared.

    what:    "gradient", of `step` of `worker` computed at `version`; or "parameters", that this gradient made.
    loss:    of that step.
    tensors: of the model that hold such values, and how many; none when it is the loss alone.
    largest: magnitude among the parameters of `version` (of the version before, for parameters), and where.
    """

    what: str
    update: int
    worker: int | None
    step: int | None
    version: int
    loss: float
    tensors: tuple[str, ...]
    largest: str


@dataclass
class Replayed:
    """What a replay found. `identical`: nothing that was compared differs in a single bit.

    updates, gradients: how many were recomputed.   checkpoints: updates at which all state was compared as well.
    settings_known:     the record says with which settings each life of the server went on.
    """

    updates: int = 0
    gradients: int = 0
    checkpoints: list[int] = field(default_factory=list)
    difference: Difference | None = None
    not_finite: list[NotFinite] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    settings_known: bool = True

    @property
    def identical(self) -> bool:
        """No difference was found."""
        return self.difference is None


def replay(
    run_dir: Path,
    until: int | None = None,
    data_dir: Path | None = None,
    progress: Callable[[int, int], None] = lambda update, last: None,
) -> Replayed:
    """Recompute the run in `run_dir`, to update `until` at most, and compare each row and checkpoint as it comes.

    progress: called after every update with its number and the last one's.
    Raises ConfigurationError for a folder without a record, LayoutError when the task's model has changed.
    """
    settings = [] if data_dir is None else [f"data.dir={str(data_dir)!r}"]
    lives = read_lives(run_dir, settings)
    rows = [row for row in read_arrivals(run_dir) if until is None or row.update <= until]
    return _Replay(run_dir, lives, rows).run(progress)


class _Replay:
    """One replay: a recomputation beside what was recorded."""

    def __init__(self, run_dir: Path, lives: list[Life], rows: list[ArrivalRow]) -> None:
        self._last = max((row.update for row in rows if row.refused is None), default=0)
        self._metrics = {row["update"]: row for row in read_rows(RunDir(run_dir).metrics)}
        self._checkpoints = _checkpoints(RunDir(run_dir).checkpoints)
        self._rows, self._lives = rows, lives
        self._suspect = any(row.refused == "not-finite" for row in rows)
        self._again = Recomputation(lives[0].experiment, rows)
        self._unfinished: list[Computed] = []
        known = RunDir(run_dir).lives.is_file() and not lives[0].arrivals
        self.found = Replayed(notes=self._again.notes, settings_known=known)

    def run(self, progress: Callable[[int, int], None]) -> Replayed:
        """Go through all rows, or to the first difference."""
        found = self.found
        if self._lives[0].arrivals:
            found.notes.append(
                f"the settings until update {self._lives[0].update} were not recorded; those from there on were taken"
            )
        for life, rows in stretches(self._lives, self._rows):
            if rows:
                self._begin(life)
                found.difference = self._relive(rows, progress)
            if found.difference is not None:
                break
        found.updates, found.gradients = self._again.trajectory.version, self._again.gradients
        missing = self._last - len([update for update in self._metrics if update <= self._last])
        if missing and found.difference is None:
            found.notes.append(f"metrics.jsonl lacks {missing} of {self._last} updates, which were not compared")
        return found

    def _begin(self, life: Life) -> None:
        """Go on with the settings of a life of the server."""
        changed = changes(self._again.experiment, life.experiment)
        if changed:
            self.found.notes.append(f"resumed at update {life.update} with {', '.join(changed)}")
        self._again.change(life.experiment)

    def _relive(self, rows: Sequence[ArrivalRow], progress: Callable[[int, int], None]) -> Difference | None:
        """Go through the rows of one life of the server."""
        for round_ in _rounds(rows):
            if round_[0].refused is not None:
                difference = self._refused(round_[0])
            else:
                difference = self._applied(round_)
                progress(self._again.trajectory.version, self._last)
            if difference is not None:
                return difference
        return self._refused_round()

    def _applied(self, rows: list[ArrivalRow]) -> Difference | None:
        version = self._again.trajectory.version
        if rows[0].update != version + 1:
            return _difference(rows, "arrivals.jsonl", "no row", f"update {version + 1} comes before this one")
        if any(row.version > version for row in rows):
            return _difference(rows, "version", str(rows[0].version), f"at most {version}")
        round_ = self._again.compute(rows)
        update = self._again.apply(round_)
        if update is None:
            return _difference(rows, "gradient", "finite", "not finite", self._tensors(round_[0]))
        loss = sum(c.loss for c in round_) / len(round_)
        current = self._again.trajectory.current.tensor
        if self._suspect and not self._known("parameters") and not all_finite(current):
            tensors = tensors_not_finite(self._again.layout, current)
            previous = largest(self._again.layout, self._again.trajectory.previous.tensor)
            self._appeared("parameters", rows, loss, tensors, previous)
        return self._compare(rows, loss, update) or self._compare_checkpoint(rows)

    def _refused(self, row: ArrivalRow) -> Difference | None:
        """A push that was not applied; it may be the first that was not finite."""
        if not self._again.needs(row) or row.version > self._again.trajectory.version:
            self._again.skip(row)
            return None
        there = largest(self._again.layout, torch.from_numpy(self._again.trajectory.values(row.version)))
        (computed,) = self._again.compute([row])
        if row.refused != "not-finite":
            return None
        if self._again.synchronous and computed.finite:  # refused with its round, whose mean was not finite
            self._unfinished.append(Computed(row, computed.loss, computed.gradient.clone()))
            return None
        if math.isfinite(computed.loss) and not self._again.synchronous and self._again.apply([computed]) is not None:
            return _difference([row], "gradient", "not finite", "finite")
        if not self._known("gradient"):
            self._appeared("gradient", [row], computed.loss, self._tensors(computed), there)
        return None

    def _refused_round(self) -> Difference | None:
        unfinished, self._unfinished = self._unfinished, []
        if unfinished and self._again.apply(unfinished) is not None:
            return _difference([c.row for c in unfinished], "mean gradient", "not finite", "finite")
        return None

    def _known(self, what: str) -> bool:
        return any(appeared.what == what for appeared in self.found.not_finite)

    def _appeared(self, what: str, rows: list[ArrivalRow], loss: float, tensors: list[str], there: str) -> None:
        worker, step = _whose(rows)
        row = rows[0]
        found = NotFinite(what, row.update, worker, step, row.version, loss, tuple(tensors), there)
        self.found.not_finite.append(found)

    def _tensors(self, computed: Computed) -> list[str]:
        return tensors_not_finite(self._again.layout, computed.gradient)

    def _compare(self, rows: list[ArrivalRow], loss: float, update: Update) -> Difference | None:
        """Every number of the update's row of metrics.jsonl."""
        row = self._metrics.get(update.version)
        if row is None:
            return None
        made: Mapping[str, Any] = {**vars(update.settings), "loss": loss, "total_momentum": update.total_momentum}
        beside = {f"total_momentum_{name}": value for name, value in update.beside.items()}
        if "pull" in row:  # else the run was begun before there was one
            beside["pull"] = None if update.settings.pull is None else update.settings.pull.part
        for name, value in [*((name, made[name]) for name in COMPARED), *beside.items()]:
            known = value if value is None or math.isfinite(value) else None  # as JSON has it
            if not same_number(row.get(name), known):
                return _difference(rows, name, repr(row.get(name)), repr(known))
        return None

    def _compare_checkpoint(self, rows: list[ArrivalRow]) -> Difference | None:
        """Everything the checkpoint of this update holds, if there is one."""
        update = self._again.trajectory.version
        if update not in self._checkpoints:
            return None
        state = load_checkpoint(self._checkpoints[update])
        layout = self._again.layout
        if state["layout"] != layout.digest:
            raise LayoutError(f"{self._checkpoints[update]}: the task's model has changed since this run was made")
        trajectory = self._again.trajectory
        for name, vector in (("parameters", trajectory.current.tensor), ("previous", trajectory.previous.tensor)):
            if not same_bits(state[name], vector):
                details = differing_tensors(layout, state[name], vector)
                return _difference(rows, name, f"{self._checkpoints[update].name}", "other values", details)
        made = {"rule": self._again.rule.state_dict(), "tuner": self._again.tuner.state_dict()}
        for name, recomputed in made.items():
            different = first_difference(state[name], recomputed, name)
            if different is not None:
                return _difference(rows, *different)
        self.found.checkpoints.append(update)
        return None


def _rounds(rows: Sequence[ArrivalRow]) -> Iterator[list[ArrivalRow]]:
    """The rows of one update together, each refused one by itself."""
    numbered = enumerate(rows)
    for _, group in groupby(numbered, key=lambda item: (item[1].update, item[1].refused and item[0])):
        yield [row for _, row in group]


def _difference(
    rows: list[ArrivalRow], name: str, recorded: str, recomputed: str, details: list[str] | None = None
) -> Difference:
    worker, step = _whose(rows)
    return Difference(rows[0].update, worker, step, rows[0].version, name, recorded, recomputed, tuple(details or ()))


def _whose(rows: list[ArrivalRow]) -> tuple[int | None, int | None]:
    """Worker and step of a push; neither for a round of several."""
    return (rows[0].worker, rows[0].step) if len(rows) == 1 else (None, None)


def _checkpoints(folder: Path) -> dict[int, Path]:
    """The run's checkpoints by update."""
    return {int(path.stem.removeprefix("update-")): path for path in folder.glob("update-*.safetensors")}
