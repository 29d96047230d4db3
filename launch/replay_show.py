"""`yfps replay`: shows how a replay goes on, and says in sentences what it found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from launch.replay import Difference, NotFinite, Replayed, replay
from launch.rundir import RunDir, read_rows, read_summary

_LINE_SECONDS = 5.0
_MOST_NOTES = 5


def main(run_dir: Path, until: int | None = None, data_dir: Path | None = None) -> int:
    """Replay the run in `run_dir` and print what came of it; 0 when it is identical, else 1."""
    console = Console()
    with _Shown(console) as shown:
        found = replay(run_dir, until, data_dir, shown.update)
    for line in sentences(found, run_dir):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0 if found.identical else 1


def sentences(found: Replayed, run_dir: Path) -> Iterator[str]:
    """The report, a line each: the result, where values stopped being finite, how the run had ended, and notes."""
    if found.difference is None:
        yield f"identical: {_count(found.updates, 'update')}, {_count(found.gradients, 'gradient')}, {_states(found)}"
    else:
        yield from _difference(found.difference)
        yield "  Bits are the same on the same hardware, with the same libraries and the same number of threads."
        resumed = [row["text"] for row in read_rows(RunDir(run_dir).events) if row["kind"] == "resumed"]
        if resumed and not found.settings_known:
            yield f"  The run was {', '.join(resumed)}: a setting that was changed there is not in the record."
    for appeared in found.not_finite:
        yield from _not_finite(appeared)
    summary = read_summary(RunDir(run_dir).summary)
    if summary.get("reason", "done") != "done":
        yield f"the run {summary['reason']}: {summary.get('reason_text')}"
    yield from (f"note: {note}" for note in found.notes[:_MOST_NOTES])
    if len(found.notes) > _MOST_NOTES:
        yield f"note: and {len(found.notes) - _MOST_NOTES} more like these"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _states(found: Replayed) -> str:
    if not found.checkpoints:
        return "no checkpoint to compare parameters with"
    *first, last = map(str, found.checkpoints)
    where = f"updates {', '.join(first)} and {last}" if first else f"update {last}"
    return f"parameters and optimizer state equal at {where}"


def _difference(difference: Difference) -> Iterator[str]:
    yield f"different at update {difference.update}: {_whose(difference)}"
    yield f"  {difference.field}: recorded {difference.recorded}, recomputed {difference.recomputed}"
    yield from (f"    {line}" for line in difference.details)


def _not_finite(appeared: NotFinite) -> Iterator[str]:
    loss = f"loss {appeared.loss:.6g}"
    if appeared.what == "gradient":
        yield f"first push that is not finite: after update {appeared.update}, {_whose(appeared)}, {loss}"
        yield f"    largest parameter at version {appeared.version}: {appeared.largest}"
    else:
        yield f"first parameters that are not finite: version {appeared.update}, made by {_whose(appeared)}, {loss}"
        yield f"    largest parameter one version before: {appeared.largest}"
    yield from (
        f"    {line}" for line in appeared.tensors or ("the loss alone: every value of the gradient is finite",)
    )


def _whose(found: Difference | NotFinite) -> str:
    """Whose push it was."""
    if found.worker is None:
        return f"the round of version {found.version}"
    return f"worker {found.worker}, step {found.step}, computed at version {found.version}"


class _Shown:
    """A bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("update"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._console = console
        self._written = time.monotonic()
        self._task = self._bar.add_task("replay", total=None) if self._bar else None

    def __enter__(self) -> _Shown:
        """Start the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def update(self, update: int, last: int) -> None:
        """So far, and how far it goes."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=update, total=last)
        elif time.monotonic() - self._written > _LINE_SECONDS:
            self._written = time.monotonic()
            self._console.print(f"update {update} of {last}", highlight=False)
