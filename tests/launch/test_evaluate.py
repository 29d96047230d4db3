"""A checkpoint evaluated again."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch import Run, simulate
from launch.evaluate import evaluate_run
from psserver.errors import ConfigurationError

NO_EVALUATE = """
import dataclasses
from worker.zoo.quadratic import quadratic
def task():
    return dataclasses.replace(quadratic(size=3), evaluate=None)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = ["train.workers=2", "train.updates=40", "evaluate.every=20", "checkpoint.every=20"]
    return simulate("digits_async16", tmp_path_factory.mktemp("evaluate") / "run", settings=settings)


def test_the_newest_checkpoint_gives_the_last_evaluation(run: Run) -> None:
    assert evaluate_run(run.path) == {"update": 40, **run.summary["last_eval"]}


def test_an_earlier_checkpoint_gives_the_earlier_evaluation(run: Run) -> None:
    found = evaluate_run(run.path, run.path / "checkpoints" / "update-00000020.safetensors")
    assert found == {key: value for key, value in run.evaluations[0].items() if key != "seconds"}
    assert found["update"] == 20


def test_a_task_without_evaluation_says_so(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NO_EVALUATE)
    settings = ["train.updates=3", f"task.function='{tmp_path}/mine.py:task'"]
    simulate("quadratic", tmp_path / "run", settings=settings)
    with pytest.raises(ConfigurationError, match="expected a task with `evaluate`"):
        evaluate_run(tmp_path / "run")
