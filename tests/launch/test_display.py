"""The display: what is drawn at any size, and what is written where there is no terminal."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from launch.display import Display, Heading, added, show_until_done
from launch.rundir import RunDir
from launch.screen import draw, gauge, sparkline
from psserver.messages import MemberStatus, Status

HEADING = Heading("digits_async16", "runs/digits_async16-20300102-120000", "tcp://127.0.0.1:5555")
START = Status(
    phase="waiting", version=0, updates=2000, seconds=0.0, loss=None, learning_rate=None, momentum=None,
    target_momentum=None, total_momentum=None, staleness_mean=None, staleness_p95=None, rate=0.0, applied=0,
    rejected=0, repeated=0, lost=0, evaluation={}, evaluated_at=None, members=(), events=(),
)  # fmt: skip


def member(worker: int, **changes: Any) -> MemberStatus:
    usual = MemberStatus(worker, "worker", "computing", "trainer-1", 31, 0, 15, 1.94, 0.2)
    return replace(usual, **changes)


def training(workers: int = 16, **changes: Any) -> Status:
    values: dict[str, Any] = {
        "phase": "training", "version": 500, "seconds": 16.0, "loss": 0.4321, "learning_rate": 0.05,
        "momentum": -0.213, "target_momentum": 0.9, "total_momentum": 0.88, "staleness_mean": 14.9,
        "staleness_p95": 19.0, "rate": 31.2, "applied": 500, "evaluation": {"accuracy": 0.93}, "evaluated_at": 400,
        "members": tuple(member(worker) for worker in range(workers)), "events": ("0.4s worker 0 joined",),
    }  # fmt: skip
    return replace(START, **(values | changes))


def drawn(status: Status, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(draw(status, HEADING, width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def written(*statuses: Status, seconds: float = 5.0) -> str:
    file = io.StringIO()
    with Display(HEADING, Console(file=file, width=80), seconds) as display:
        for status in statuses:
            display.update(status)
    return file.getvalue()


def test_one_look_tells_how_the_run_stands() -> None:
    screen = "\n".join(drawn(training()))
    for words in ("digits_async16", "training", "500 of 2,000", "25 %", "48 s left", "0.4321", "0.05", "target 0.900"):
        assert words in screen
    for words in ("total 0.880", "algorithmic −0.213", "14.9 mean", "31.2 updates/s", "accuracy 0.93", "joined"):
        assert words in screen


@pytest.mark.parametrize("workers", [0, 1, 4, 16, 64, 300])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60), (60, 16), (40, 12)])
def test_nothing_leaves_the_screen(width: int, height: int, workers: int) -> None:
    lines = drawn(training(workers, events=("1.0s " + "long " * 100,) * 8), width, height)
    assert max(map(len, lines)) <= width
    assert len(lines) <= height


def test_all_workers_are_shown_where_there_is_room() -> None:
    lines = drawn(training(16), 120, 40)
    assert sum("trainer-1" in line for line in lines) == 16


def test_lost_workers_stay_visible_when_others_are_folded() -> None:
    many = tuple(member(n, state="lost" if n == 57 else "computing") for n in range(64))
    screen = "\n".join(drawn(training(members=many)))
    assert "57  lost" in screen
    assert "more: " in screen


def test_a_run_that_has_measured_nothing_is_drawn() -> None:
    screen = "\n".join(drawn(START))
    assert "waiting for workers" in screen
    assert "–" in screen


def test_the_gauge_keeps_order_and_holds_what_lies_beyond_its_ends() -> None:
    line = gauge(training(momentum=-0.5, total_momentum=3.0, target_momentum=0.5), 41).plain
    assert line.index("▲") < line.index("┼") < line.index("◇") < line.index("●")
    assert line.endswith("●1")


def test_a_sparkline_falls_with_the_loss() -> None:
    line = sparkline([2.0 - 0.01 * n for n in range(150)], 20)
    assert len(line) == 20
    assert list(line) == sorted(line, reverse=True)
    assert sparkline([1.0, float("nan")], 20) == ""


def test_text_from_another_host_cannot_steer_the_terminal() -> None:
    hostile = training(members=(member(0, host="\x1b[2Jhost"),), events=("1.0s \x1b]0;title\x07",))
    assert "\x1b" not in "".join(drawn(hostile)) + written(hostile)


def test_without_a_terminal_each_event_is_written_once() -> None:
    first, second = ("1.0s worker 0 joined",), ("1.0s worker 0 joined", "2.0s worker 1 joined")
    text = written(training(events=first), training(events=first), training(events=second))
    assert text.count("worker 0 joined") == text.count("worker 1 joined") == 1


def test_without_a_terminal_a_line_is_written_every_few_seconds() -> None:
    text = written(*(training(seconds=second / 4) for second in range(81)), seconds=5.0)
    assert text.count("updates/s") == 5
    assert "\x1b" not in text


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_terminal_without_unicode_gets_lines(encoding: str) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, force_terminal=True, legacy_windows=False, _environ={"TERM": "xterm"})
    assert Display(HEADING, console).interactive == (encoding == "utf-8")


def test_lines_survive_an_output_that_knows_ascii_only() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with Display(HEADING, Console(file=file)) as display:
        display.update(training())
    file.flush()
    assert b"loss 0.4321" in file.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_live_screen_ends_with_the_last_status() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=30, _environ={"TERM": "xterm"})
    with Display(HEADING, console) as display:
        display.update(training())
        display.update(training(phase="done", version=2000))
    assert "2,000 of 2,000" in file.getvalue()


def test_the_end_is_told_from_the_runs_folder(tmp_path: Path) -> None:
    summary = {"updates": 2000, "seconds": 61.0, "final_train_loss": 0.01, "best_eval": 0.97, "reason": "done"}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    file = io.StringIO()
    with Display(HEADING, Console(file=file, width=80)) as display:
        display.update(training(version=1990))
        display.finish(RunDir(tmp_path))
    assert "2,000/2,000" in file.getvalue()
    assert "done: 2,000 updates in 1:01, training loss 0.01, best evaluation 0.97" in file.getvalue()


def test_watching_ends_when_the_run_is_done() -> None:
    statuses = iter([START, training(), training(phase="done")])
    pauses: list[float] = []
    last = show_until_done(lambda: next(statuses), Display(HEADING, Console(file=io.StringIO())), pauses.append)
    assert (last.phase, len(pauses)) == ("done", 2)


@given(st.lists(st.sampled_from("abc"), max_size=20), st.integers(0, 20), st.integers(1, 8))
@settings(deadline=None)
def test_new_events_are_those_a_growing_list_gained(letters: list[str], cut: int, kept: int) -> None:
    everything = [f"{index}{letter}" for index, letter in enumerate(letters)]
    cut = min(cut, len(everything))
    earlier, later = tuple(everything[:cut][-kept:]), tuple(everything[-kept:])
    assert added(earlier, later) == tuple(everything[cut:][-kept:])
