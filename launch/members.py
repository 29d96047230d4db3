"""The table of members: a row each while there is room, side by side where it is wide, else the healthy ones folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launch.numbers import duration, harmless, shown
from psserver.messages import MemberStatus

_WIDTH = 72
_WIDEST = 100
_COLUMNS = (("worker", 10), ("state", 9), ("pushes", 7), ("rejected", 8), ("rate/s", 6), ("stale", 5), ("seen", 5))
_STATES = {"computing": "green", "waiting": "yellow", "lost": "bold red", "left": "dim"}
_TROUBLE = {"lost": 0, "waiting": 1, "computing": 2, "left": 3}


def draw_members(members: Sequence[MemberStatus], width: int, height: int) -> RenderableType:
    """At most `height` lines: a heading, rows, and one line for the members that found no room.

    Lost members come first when rows are short, then those not heard from for longest.
    """
    ordered = sorted(members, key=lambda member: (member.role != "worker", member.worker))
    across = max(1, width // (_WIDTH + 2))
    room = max(height - 1, 1)
    if len(ordered) <= room:
        return _table(ordered, min(width - 1, _WIDEST))
    if len(ordered) <= room * across:
        rows = -(-len(ordered) // across)
        return Columns([_table(ordered[at : at + rows]) for at in range(0, len(ordered), rows)], padding=(0, 2))
    room = max(room - 1, 0)
    urgent = sorted(ordered, key=lambda member: (_TROUBLE[member.state], -member.last_seen))
    kept = set(map(id, urgent[: room * across]))
    shown_rows = [member for member in ordered if id(member) in kept]
    tables = [_table(shown_rows[at : at + room]) for at in range(0, len(shown_rows), room)] if room else []
    return Group(Columns(tables, padding=(0, 2)), _folded([member for member in ordered if id(member) not in kept]))


def _folded(members: Sequence[MemberStatus]) -> Text:
    states = Counter(member.state for member in members)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    rate = sum(member.rate for member in members)
    return Text(f" and {len(members)} more: {counts}, {shown(rate, 3)} pushes/s together", style="dim")


def _table(members: Sequence[MemberStatus], width: int = _WIDTH) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", width=width)
    for name, width in _COLUMNS:
        table.add_column(
            name, justify="left" if name == "state" else "right", width=width, min_width=width, no_wrap=True
        )
    table.add_column("host", no_wrap=True, overflow="ellipsis", ratio=1)
    for member in members:
        table.add_row(*_row(member))
    return table


def _row(member: MemberStatus) -> list[Text]:
    works = member.role == "worker"
    seen = f"{member.last_seen:.1f} s" if member.last_seen < 10 else duration(member.last_seen)
    return [
        Text(str(member.worker) if works else member.role),
        Text(member.state, style=_STATES[member.state]),
        Text(f"{member.pushes:,}" if works else ""),
        Text(f"{member.rejected:,}" if member.rejected else "", style="yellow"),
        Text(shown(member.rate, 3) if works else ""),
        Text("" if member.staleness is None else str(member.staleness)),
        Text(seen),
        Text(harmless(member.host), style="dim"),
    ]
