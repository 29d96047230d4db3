"""Simulated workers that come, leave or become slow in mid-run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import Run, load_experiment, simulate
from launch.arrivals import Drawn, InTurn
from launch.order import Presence, make_arrivals
from launch.replay import replay
from launch.rundir import RunDir, read_rows
from psserver.errors import ConfigurationError

BASE = ["tuner.target=constant", "tuner.loop=open", "tuner.learning_rate=0.001", "task.arguments.size=20"]


def run(folder: Path, *settings: str, staleness: Any = "memoryless") -> Run:
    return simulate("quadratic", folder, staleness=staleness, settings=[*BASE, "checkpoint.every=0", *settings])


def events(run: Run, kind: str) -> list[int]:
    """Ranks of the workers it happened to; the evaluator has none."""
    ranks = [row["worker"] for row in read_rows(RunDir(run.path).events) if row["kind"] == kind]
    return [rank for rank in ranks if rank is not None]


def coming(staleness: Any, folder: Path) -> Run:
    settings = ["train.updates=400", "train.workers=16", "simulate.workers_at_first=3", "simulate.change_at=100"]
    return run(folder, *settings, staleness=staleness)


@pytest.mark.parametrize("staleness", ["round-robin", "memoryless", "gamma", "none"])
def test_workers_that_come_in_mid_run_take_part_from_then_on(staleness: Any, tmp_path: Path) -> None:
    one, two = (coming(staleness, tmp_path / name) for name in "ab")
    rows = one.metrics
    assert {row["worker"] for row in rows[:100]} == {0, 1, 2}
    assert {row["worker"] for row in rows[200:]} == {*range(16)}
    assert rows == two.metrics
    assert events(one, "joined") == [*range(16)]
    if staleness == "round-robin":
        assert {row["staleness"] for row in rows[10:100]} == {2}
        assert {row["staleness"] for row in rows[140:]} == {15}
    # Sixteen workers make the 300 updates after the change in the time that three would need for 56.
    assert rows[-1]["seconds"] == pytest.approx(100 / 3 + 300 / 16, rel=0.15)
    assert replay(one.path).identical


@pytest.mark.parametrize("staleness", ["round-robin", "memoryless", "gamma"])
@pytest.mark.parametrize("mode", ["asynchronous", "synchronous"])
def test_workers_that_leave_say_goodbye_and_push_no_more(staleness: Any, mode: str, tmp_path: Path) -> None:
    settings = ["train.updates=60", "train.workers=5", "simulate.workers_at_end=2", "simulate.change_at=30"]
    done = run(tmp_path / "run", *settings, f"server.mode={mode}", staleness=staleness)
    assert done.summary["updates"] == 60
    assert events(done, "left")[:3] == [4, 3, 2]
    rows = list(read_rows(RunDir(done.path).arrivals))
    late = {row["worker"] for row in rows if row["update"] > 30}
    assert late == {0, 1}
    assert {row["worker"] for row in rows if row["update"] <= 30} == {*range(5)}


def test_a_bound_on_staleness_survives_those_who_leave(tmp_path: Path) -> None:
    settings = ["train.updates=200", "train.workers=8", "server.max_staleness=3"]
    settings += ["simulate.workers_at_end=3", "simulate.change_at=100"]
    done = run(tmp_path / "run", *settings)
    assert done.summary["updates"] == 200
    assert max(row["staleness"] for row in done.metrics) <= 3


def test_stragglers_appear_when_they_are_told_to(tmp_path: Path) -> None:
    settings = ["train.updates=1200", "train.workers=4", "simulate.slowdown=20", "simulate.appear_at=600"]
    workers = np.array([row["worker"] for row in run(tmp_path / "run", *settings, staleness="stragglers").metrics])
    early, late = (np.mean(part == 0) for part in np.split(workers, 2))
    assert early == pytest.approx(1 / 4, abs=0.05)
    assert late == pytest.approx(1 / 61, abs=0.01)


def test_without_a_change_nothing_is_drawn_otherwise() -> None:
    settings = ["simulate.staleness=stragglers", "simulate.appear_at=0", "train.workers=4"]
    queue = make_arrivals(load_experiment("quadratic", settings))
    assert queue.turn(0) is None
    assert Presence.of(load_experiment("quadratic", settings)).at(10**9) == 4


@pytest.mark.parametrize("process", [InTurn(2, newest=False), Drawn(2, 1)], ids=["in turn", "drawn"])
def test_time_goes_on_from_where_it_was_when_workers_come_and_leave(process: InTurn | Drawn) -> None:
    process.turn(100)
    assert process.seconds(100) == 50
    process.started(2)
    process.started(3)
    assert [process.seconds(version) for version in (100, 140)] == [50, 60]
    process.left(3)
    process.left(2)
    assert process.seconds(160) == 70
    assert {getattr(process.turn(160), "worker", None) for _ in range(20)} == {0, 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["simulate.workers_at_first=2"], "workers_at_first: expected change_at"),
        (["simulate.change_at=0"], "simulate.change_at: expected 1 or more"),
        (["simulate.workers_at_end=9", "simulate.change_at=5", "train.workers=4"], "expected at most 4"),
        (["simulate.staleness=trace", "simulate.trace=x", "simulate.change_at=5"], "expected none with a trace"),
    ],
)
def test_changes_that_cannot_be_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_arrivals(load_experiment("quadratic", settings))
