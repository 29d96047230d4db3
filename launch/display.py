"""Shows a run while it runs: a live screen on a terminal, plain lines everywhere else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from launch.numbers import duration, harmless, shown
from launch.rundir import RunDir, read_summary
from launch.screen import PHASES, Heading, draw, log_line
from psserver.messages import Status

__all__ = ["Display", "Heading"]

_REMEMBERED = 2000
_PLAIN = str.maketrans("−–", "--")


class Display:
    """Takes one Status after another. Use as a context manager, from one thread.

    seconds: time between two lines where there is no terminal (events are written as they come).
    """

    def __init__(self, heading: Heading, console: Console | None = None, seconds: float = 5.0) -> None:
        self._heading = heading
        self._console = console or Console()
        self._seconds = seconds
        self._status: Status | None = None
        self._losses: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._events: tuple[str, ...] = ()
        self._written: tuple[str, float] | None = None
        self._closing: tuple[str, ...] = ()
        self._live = Live(self, console=self._console, auto_refresh=False) if self.interactive else None

    @property
    def interactive(self) -> bool:
        """Whether the output is a terminal that can redraw itself and knows more than ASCII."""
        terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        return terminal and self._console.encoding.lower().startswith("utf")

    def __enter__(self) -> Display:
        """Take over the terminal, or write the first lines."""
        if self._live:
            self._live.start()
        else:
            self._write(f"{self._heading.name}  {self._heading.run_dir}  {self._heading.address}".rstrip())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last screen standing, give the terminal back, and say how it ended."""
        if self._live:
            self._live.stop()
        for line in self._closing:
            self._write(line)
        self._closing = ()

    def update(self, status: Status) -> None:
        """Show how the run stands now."""
        self._status = status
        if status.loss is not None and (not self._losses or self._losses[-1][0] < status.version):
            self._losses.append((status.version, status.loss))
        if self._live:
            self._live.refresh()
        else:
            self._log(status)

    def finish(self, places: RunDir) -> None:
        """Show the end as the run's folder tells it, which may lie past the last Status that was seen."""
        summary = read_summary(places.summary)
        if not summary:
            return
        if self._status is not None:
            self.update(_ended(self._status, summary))
        self._closing = (closing_line(summary), f"Records: {places.path}")

    def note(self, text: str) -> None:
        """Say something beside the run, above the screen or between the lines."""
        self._write(text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The newest Status at the terminal's present size."""
        if self._status is not None:
            losses = [loss for _, loss in self._losses]
            yield draw(self._status, self._heading, console.width, console.height - 1, losses)

    def _log(self, status: Status) -> None:
        for event in added(self._events, status.events):
            self._write(f"{'':>8}  {harmless(event)}")
        self._events = status.events
        phase, seconds = self._written or ("", 0.0)
        if phase != status.phase:
            self._write(f"{'':>8}  {PHASES[status.phase][0]}")
        if phase != status.phase or status.seconds - seconds >= self._seconds:
            if status.version:
                self._write(log_line(status))
            self._written = (status.phase, status.seconds)

    def _write(self, text: str) -> None:
        if not self._live:
            text = text.translate(_PLAIN)
            text = text.encode(self._console.encoding, "replace").decode(self._console.encoding)
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _ended(status: Status, summary: Mapping[str, Any]) -> Status:
    done = summary.get("reason") == "done"
    return replace(
        status,
        phase="done" if done else status.phase,
        version=int(summary.get("updates") or status.version),
        seconds=float(summary.get("seconds") or status.seconds),
        loss=summary.get("final_train_loss", status.loss),
        evaluation=summary.get("last_eval") or status.evaluation,
        evaluated_at=summary.get("last_eval_update") or status.evaluated_at,
    )


def closing_line(summary: Mapping[str, Any]) -> str:
    """What a run came to, in one line; what is not known is left out."""
    updates, seconds = summary.get("updates", 0), summary.get("seconds") or 0.0
    parts = [f"{summary.get('reason', 'ended')}: {updates:,} updates in {duration(seconds)}"]
    if summary.get("final_train_loss") is not None:
        parts.append(f"training loss {shown(summary['final_train_loss'])}")
    if summary.get("best_eval") is not None:
        parts.append(f"best {summary.get('best_eval_name') or 'evaluation'} {shown(summary['best_eval'])}")
    if summary.get("mean_total_momentum") is not None:
        parts.append(f"mean total momentum {shown(summary['mean_total_momentum'], 3)}")
    if summary.get("workers_lost"):
        parts.append(f"{summary['workers_lost']} workers lost")
    return ", ".join(parts)


def added(earlier: tuple[str, ...], later: tuple[str, ...]) -> tuple[str, ...]:
    """The entries of `later` that are new, when both are the newest entries of one growing list."""
    for shared in range(min(len(earlier), len(later)), 0, -1):
        if earlier[-shared:] == later[:shared]:
            return later[shared:]
    return later


def show_until_done(poll: Callable[[], Status], display: Display, pause: Callable[[float], object]) -> Status:
    """Poll and show four times a second until the run is done; the last Status. `poll`'s errors pass through."""
    with display:
        while True:
            status = poll()
            display.update(status)
            if status.phase == "done":
                return status
            pause(0.25 if display.interactive else 1.0)
