"""Points of a sweep: computed once, found again, and what a failed one comes to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from launch import load_experiment, simulate
from launch.experiment import Experiment
from launch.lab.hand import write_outcome
from launch.lab.points import Outcome, Point, alone, forget, run_points
from psserver.errors import ConfigurationError, TaskError

SETTINGS = [
    "rule.name=momentum_sgd",
    "tuner.target=constant",
    "tuner.loop=open",
    "train.updates=30",
    "evaluate.every=10",
]


def experiment(*settings: str) -> Experiment:
    return load_experiment("quadratic", [*SETTINGS, *settings])


def runs(outcome: Outcome) -> int:
    return (outcome.path.parent / "log").read_text().count("started ")


def test_the_key_is_of_what_is_computed_not_of_names_and_places() -> None:
    key = Point("a", experiment()).key
    assert key == Point("b", experiment("data.dir=/elsewhere", "checkpoint.every=7")).key
    others = [Point("a", experiment("train.seed=2")), Point("a", experiment("tuner.momentum=0.1"))]
    assert len({key, Point("a", experiment(), "train").key, *(point.key for point in others)}) == 4


def test_points_are_the_simulators_own_runs_and_computed_once(tmp_path: Path) -> None:
    lines: list[str] = []
    points = [
        Point("one", experiment()),
        Point("wild", experiment("tuner.learning_rate=1e6", "train.updates=400")),
        Point("the same", experiment()),
    ]
    one, wild, same = run_points(points, tmp_path, 1, lines.append)
    assert [line.split("  ")[0] for line in lines] == ["1/2", "2/2"]
    alone_run = simulate(points[0].experiment, tmp_path / "alone")
    assert one.losses.tolist() == [row["loss"] for row in alone_run.metrics]
    assert one.summary["updates"] == len(one.rows()) == 30
    assert [row["update"] for row in one.evaluations] == [10, 20, 30]
    assert not one.diverged
    assert one.failure == ""
    assert np.isfinite(one.column("momentum")).all()
    assert not (one.path / "checkpoints").exists()
    assert (same.point.name, same.path) == ("the same", one.path)
    assert wild.diverged
    assert "diverged" in wild.failure
    assert 0 < len(wild.losses) < 400

    again = run_points(points[::-1], tmp_path, 1, lines.append)
    assert len(lines) == 2
    assert [runs(outcome) for outcome in again] == [1, 1, 1]
    assert again[2].losses.tolist() == one.losses.tolist()


def test_a_task_that_is_wrong_ends_the_sweep_with_its_own_error(tmp_path: Path) -> None:
    task = tmp_path / "wrong.py"
    task.write_text("def task():\n    raise ZeroDivisionError('mine')\n")
    points = [Point("wrong", experiment(f"task.function={task}:task"))]
    with pytest.raises(TaskError):
        run_points(points, tmp_path, 1, print)
    assert not list(tmp_path.rglob("outcome.json"))


def test_what_is_forgotten_and_what_lost_its_process_is_computed_again(tmp_path: Path) -> None:
    points = [Point(name, experiment(f"train.seed={seed}")) for seed, name in enumerate(["kept", "forgotten", "lost"])]
    run_points(points, tmp_path, 1, print)
    assert forget([points[1], Point("unknown", experiment("train.seed=9"))], tmp_path) == 1
    write_outcome(tmp_path / "points" / points[2].key, 0.0, "its process was killed", {}, lost=True)
    again = run_points(points, tmp_path, 1, print)
    assert [runs(outcome) for outcome in again] == [1, 2, 2]
    assert not any(outcome.diverged for outcome in again)


def test_two_sweeps_in_one_folder_are_refused(tmp_path: Path) -> None:
    with alone(tmp_path / "points"), pytest.raises(ConfigurationError, match="another sweep is at work"):
        run_points([Point("one", experiment())], tmp_path, 1, print)
