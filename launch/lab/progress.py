"""How far a sweep is: a bar with the time left on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from launch.numbers import duration

_MEMORY = 3600.0


class Progress:
    """Counts finished points. Use as a context manager.

    show: takes the lines where there is no terminal.
    """

    def __init__(self, total: int, show: Callable[[str], None], console: Console | None = None) -> None:
        console = console or Console()
        self._total, self._done, self._show = total, 0, show
        self._started = time.monotonic()
        self._bar: Bar | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            words = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
            columns = (words, BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=console, transient=True, expand=True, speed_estimate_period=_MEMORY)
            self._task = self._bar.add_task("points", total=total)

    def __enter__(self) -> Progress:
        """Start the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back."""
        if self._bar:
            self._bar.stop()

    def done(self, text: str) -> None:
        """One more point is finished."""
        self._done += 1
        if self._bar:
            self._bar.update(self._task, completed=self._done, description=text)
            return
        passed = time.monotonic() - self._started
        left = passed / self._done * (self._total - self._done)
        self._show(f"{self._done}/{self._total}  {text}" + (f"  ({duration(left)} left)" if left else ""))

    def say(self, text: str) -> None:
        """Something to be told beside the count."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._show(text)
