"""Draws a Status: a pure function from what the server says to what the terminal shows, at any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launch.members import draw_members
from launch.numbers import NOTHING, duration, fixed, harmless, shown
from psserver.messages import Status

PHASES = {
    "waiting": ("waiting for workers", "yellow"),
    "training": ("training", "green"),
    "draining": ("finishing", "cyan"),
    "done": ("done", "bold green"),
}
TARGET, TOTAL, ALGORITHMIC = ("◇", "cyan"), ("●", "magenta"), ("▲", "yellow")
_BARS = "▁▂▃▄▅▆▇█"
_LABEL = 13
_MOST_EVENTS = 5
_LEAST_WITH_EVENTS = 14


@dataclass(frozen=True)
class Heading:
    """What the server does not say: the experiment's name, the run's folder and the address."""

    name: str
    run_dir: str
    address: str


def draw(status: Status, heading: Heading, width: int, height: int, losses: Sequence[float] = ()) -> RenderableType:
    """The whole screen, at most `height` lines of `width` columns; `losses` are earlier ones, oldest first."""
    parts: list[RenderableType] = [_title(status, heading, width), _place(heading, width), _progress(status, width)]
    parts += [Text(), *_measurements(status, width, losses)]
    events = status.events[-min(_MOST_EVENTS, max(1, height // 8)) :] if height >= _LEAST_WITH_EVENTS else ()
    room = height - len(parts) - len(events) - 3
    if status.members and room > 1:
        parts += [Text(), draw_members(status.members, width, room)]
    if events:
        parts += [Text(), *(_event(event, width) for event in events)]
    return Group(*parts)


def _title(status: Status, heading: Heading, width: int) -> Text:
    words, style = PHASES[status.phase]
    left = Text.assemble((" YellowFin PS ", "bold reverse"), "  ", (heading.name, "bold"))
    right = Text.assemble((words, style), (f"  {duration(status.seconds)}", "dim"))
    left.truncate(max(width - right.cell_len - 2, 16), overflow="ellipsis")
    left.pad_right(max(1, width - left.cell_len - right.cell_len - 1))
    return left.append_text(right)


def _place(heading: Heading, width: int) -> Text:
    address = f"  ·  {heading.address}" if heading.address else ""
    text = Text(f" {heading.run_dir}{address}", style="dim")
    text.truncate(width - 1, overflow="ellipsis")
    return text


def _progress(status: Status, width: int) -> RenderableType:
    goal, done = status.updates, status.version
    share = 100 * done / goal if goal else 0.0
    left = duration((goal - done) / status.rate) if status.rate > 0 and done < goal else NOTHING
    words = f"{done:,} of {goal:,}  {share:.0f} %" + (f"  {left} left" if status.phase != "done" else "")
    grid = Table.grid(padding=(0, 1), expand=False)
    grid.add_column()
    grid.add_column(no_wrap=True)
    bar = ProgressBar(total=max(goal, 1), completed=min(done, goal), width=max(width - len(words) - 4, 8))
    grid.add_row(bar, Text(words))
    return Group(Text(), _indented(grid))


def _indented(table: Table) -> Table:
    outer = Table.grid(padding=0)
    outer.add_column(width=1)
    outer.add_column()
    outer.add_row("", table)
    return outer


def _measurements(status: Status, width: int, losses: Sequence[float]) -> list[RenderableType]:
    room = max(width - _LABEL - 2, 10)
    loss = Text(f"{shown(status.loss):<10}", style="bold")
    loss.append(sparkline(losses, max(room - 11, 0)), style="cyan")
    pace = f"{fixed(status.staleness_mean, 1)} mean, {fixed(status.staleness_p95, 0)} at the 95th percentile"
    lines = [
        _line("loss", loss),
        _line("learning rate", Text(shown(status.learning_rate, 3))),
        _line("momentum", _momenta(status)),
        _line("", gauge(status, min(room - 4, 67))),
        _line("staleness", Text(pace)),
        _line("speed", _speed(status)),
        _line("evaluation", _evaluation(status)),
    ]
    for line in lines:
        line.truncate(width - 1, overflow="ellipsis")
    return [*lines]


def _line(label: str, value: Text) -> Text:
    return Text.assemble((f" {label:<{_LABEL}} ", "dim"), value)


def _momenta(status: Status) -> Text:
    text = Text()
    for (mark, style), name, value in (
        (TARGET, "target", status.target_momentum),
        (TOTAL, "total", status.total_momentum),
        (ALGORITHMIC, "algorithmic", status.momentum),
    ):
        text.append(f"{mark} ", style=style).append(f"{name} ").append(f"{fixed(value):<8}", style="bold")
    return text


def gauge(status: Status, width: int) -> Text:
    """The line from −1 to 1 with the three momenta on it; what lies beyond an end is drawn at the end."""
    cells: list[tuple[str, str]] = [("─", "dim")] * width
    middle = (width - 1) // 2
    cells[middle] = ("┼", "dim")
    for (mark, style), value in (
        (TARGET, status.target_momentum),
        (ALGORITHMIC, status.momentum),
        (TOTAL, status.total_momentum),
    ):
        if value is not None and value == value:
            cells[round(middle + max(-1.0, min(1.0, value)) * middle)] = (mark, f"bold {style}")
    return Text.assemble(("−1", "dim"), *cells, ("1", "dim"))


def _speed(status: Status) -> Text:
    text = Text(f"{shown(status.rate, 3)} updates/s   ")
    for count, name, style in (
        (status.applied, "applied", ""),
        (status.rejected, "rejected", "yellow"),
        (status.repeated, "repeated", "yellow"),
        (status.lost, "lost", "red"),
    ):
        if count or name == "applied":
            text.append(f"{count:,} {name}   ", style=style)
    return text


def _evaluation(status: Status) -> Text:
    if not status.evaluation:
        return Text(NOTHING, style="dim")
    numbers = "   ".join(f"{harmless(name)} {shown(value)}" for name, value in status.evaluation.items())
    return Text.assemble((numbers, "bold"), (f"   at update {status.evaluated_at or 0:,}", "dim"))


def _event(event: str, width: int) -> Text:
    time, _, words = harmless(event).partition(" ")
    text = Text.assemble((f" {time:>8}  ", "dim"), words)
    text.truncate(width - 1, overflow="ellipsis")
    return text


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as a line of bars, the lowest one lowest; each bar is the mean of its share of the values."""
    finite = [value for value in values if abs(value) < float("inf")]
    if width < 4 or len(finite) < 2:
        return ""
    count = min(width, len(finite))
    edges = [round(index * len(finite) / count) for index in range(count + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    return "".join(_BARS[int((mean - low) / span * (len(_BARS) - 1)) if span else 0] for mean in means)


def log_line(status: Status) -> str:
    """The same in one line of plain text, for logs and pipes."""
    parts = [
        f"{status.version:,}/{status.updates:,}",
        f"loss {shown(status.loss)}",
        f"lr {shown(status.learning_rate, 3)}",
        f"momentum target {fixed(status.target_momentum)} total {fixed(status.total_momentum)} "
        f"algorithmic {fixed(status.momentum)}",
        f"staleness {fixed(status.staleness_mean, 1)}",
        f"{shown(status.rate, 3)} updates/s",
        _states(status),
    ]
    if status.evaluation:
        parts.append(" ".join(f"{harmless(name)} {shown(value)}" for name, value in status.evaluation.items()))
    return f"{duration(status.seconds):>8}  " + " | ".join(parts)


def _states(status: Status) -> str:
    states = Counter(member.state for member in status.members if member.role == "worker")
    alive = states["computing"] + states["waiting"]
    return f"{alive} workers" + (f" ({states['lost']} lost)" if states["lost"] else "")
