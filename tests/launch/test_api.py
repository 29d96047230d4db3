"""The Python interface: `train` and `simulate` give back a run, whatever describes the experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import launch
from launch import Run, load_experiment, simulate, train
from launch.build import make_task
from psserver.errors import CheckpointError, ConfigurationError, UserError

SETTINGS = ["train.workers=2", "train.updates=60", "evaluate.every=0", "tuner.lr_factor=0.1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train("digits_async16", tmp_path_factory.mktemp("api") / "run", settings=SETTINGS)


def test_train_returns_what_its_processes_did(trained: Run) -> None:
    assert [row["update"] for row in trained.metrics] == list(range(1, 61))
    assert (trained.summary["updates"], trained.summary["reason"]) == (60, "done")
    assert trained.evaluations[-1]["update"] == 60


def test_the_state_dict_loads_into_the_model_and_gives_the_evaluators_numbers(trained: Run) -> None:
    task = make_task(load_experiment(trained.path))
    model = task.model()
    model.load_state_dict(trained.state_dict())
    assert task.evaluate is not None
    with torch.no_grad():
        assert dict(task.evaluate(model.eval())) == trained.summary["last_eval"]


def test_a_finished_run_goes_on_for_longer(trained: Run) -> None:
    longer = train(trained.path, trained.path, settings=["train.updates=90"], resume=True)
    assert [row["update"] for row in longer.metrics] == list(range(1, 91))
    assert longer.summary["pushes_applied"] == 90


def test_settings_that_the_checkpoint_does_not_fit_leave_the_run_as_it_was(trained: Run) -> None:
    before = (trained.path / "experiment.toml").read_bytes()
    with pytest.raises(UserError, match=r"one without .products."):
        train(trained.path, trained.path, settings=["train.updates=120", "rule.name=soap"], resume=True)
    assert (trained.path / "experiment.toml").read_bytes() == before


@pytest.mark.parametrize("kind", ["name", "file", "experiment"])
def test_an_experiment_is_a_name_a_file_or_an_object(kind: str, tmp_path: Path) -> None:
    known = load_experiment("quadratic", ["train.updates=5"])
    known.write(tmp_path / "mine.toml")
    source: Any = {"name": "quadratic", "file": tmp_path / "mine.toml", "experiment": known}[kind]
    run = simulate(source, tmp_path / "run", settings=["train.updates=5"])
    assert (len(run.metrics), run.summary["updates"]) == (5, 5)
    assert repr(run) == f"Run('{tmp_path / 'run'}')"


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    simulate("quadratic", tmp_path / "run", settings=["train.updates=5"])
    with pytest.raises(ConfigurationError, match="not empty"):
        simulate("quadratic", tmp_path / "run", settings=["train.updates=5"])


def test_a_run_that_never_started_has_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert (run.metrics, run.evaluations, run.summary) == ([], [], {})
    with pytest.raises(CheckpointError, match="expected a checkpoint"):
        run.checkpoint()


def test_the_interface_stays_what_it_is_once_it_was_used(tmp_path: Path) -> None:
    simulate("quadratic", tmp_path / "run", settings=["train.updates=2"])
    assert {name: getattr(launch, name).__name__ for name in launch.__all__} == {n: n for n in launch.__all__}
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = launch.trian
