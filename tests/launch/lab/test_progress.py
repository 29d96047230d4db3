"""How far a sweep is: lines in a log, one line that changes on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from launch.lab.progress import Progress


def test_a_log_gets_a_line_a_point_and_the_time_left() -> None:
    lines: list[str] = []
    with Progress(2, lines.append, Console(file=io.StringIO())) as progress:
        progress.done("first")
        progress.say("a process died")
        progress.done("second")
    assert lines[0].startswith("1/2  first  (")
    assert lines[1:] == ["a process died", "2/2  second"]


def test_a_terminal_gets_one_line_however_long_the_words() -> None:
    lines: list[str] = []
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=20, _environ={})
    with Progress(3, lines.append, console) as progress:
        progress.done("momentum SGD (μ 0.9, α 0.03), 16 workers, seed 1: loss 1.767, 11 s, and more words" * 2)
        progress.say("beside the bar")
    text = console.file.getvalue() if isinstance(console.file, io.StringIO) else ""
    assert "1/3" in text
    assert "…" in text
    assert "beside the bar" in text
    assert lines == []
