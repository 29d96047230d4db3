"""What one gets who says nothing but the task: it learns, with and without staleness, and can be made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import Experiment, load_experiment, simulate
from launch.demo import SCENES
from launch.lab.grid import find_grid, load_grid
from launch.replay import replay
from psserver.options import RuleOptions
from tuner.options import TunerOptions

UPDATES = 300


def nothing_but_the_task(folder: Path) -> Experiment:
    path = folder / "plain.toml"
    path.write_text('[task]\nfunction = "worker.zoo.digits:cnn"\n')
    return load_experiment(path, [f"train.updates={UPDATES}", "train.workers=16"])


def test_sixteen_workers_in_turn_learn_digits_and_the_run_can_be_made_again(tmp_path: Path) -> None:
    run = simulate(nothing_but_the_task(tmp_path), tmp_path / "run")
    losses = np.array([row["loss"] for row in run.metrics])
    assert run.summary["mean_staleness"] == pytest.approx(15, abs=0.5)
    assert np.isfinite(losses).all()
    rounds = np.convolve(losses, np.full(16, 1 / 16), "valid")  # one gradient of each worker
    assert rounds.max() < 2.0 * rounds[0], "it never diverges on the way"
    assert losses[-16:].mean() < 1.0, "one gradient of each worker"
    assert run.summary["last_eval"]["loss"] < 1.0
    assert run.summary["pushes_rejected"] == 0
    found = replay(run.path)
    assert (found.difference, found.updates, found.checkpoints) == (None, UPDATES, [UPDATES])


def test_a_hundred_and_twenty_eight_in_turn_learn_too_though_what_a_rise_does_shows_that_much_later(
    tmp_path: Path,
) -> None:
    many = nothing_but_the_task(tmp_path).with_settings("train.workers=128", "train.updates=1500")
    run = simulate(many, tmp_path / "run")
    losses = np.array([row["loss"] for row in run.metrics])
    assert run.summary["mean_staleness"] == pytest.approx(127, abs=6)
    rounds = np.convolve(losses, np.full(128, 1 / 128), "valid")
    assert rounds.max() < 1.5 * rounds[0], "with quicker rises it comes to hundreds of times that"
    assert losses[-128:].mean() < 2.0, "after some twelve gradients of each worker"


@pytest.mark.parametrize("staleness", ["none", "memoryless", "stragglers"])
def test_with_other_staleness_it_learns_too(staleness: Any, tmp_path: Path) -> None:
    run = simulate(nothing_but_the_task(tmp_path), tmp_path / "run", staleness)
    assert run.summary["final_train_loss"] < 1.0
    rows = run.metrics
    assert rows[-1]["learning_rate"] < 0.01 * max(row["learning_rate"] for row in rows), "it falls to nothing"
    least = 0.8 if staleness == "none" else -0.3
    assert all(least <= row["momentum"] <= row["target_momentum"] == 0.8 for row in rows)
    assert (run.summary["momentum_min"] < 0.75) == (staleness != "none")


@pytest.mark.parametrize("rule", ["adam", "adamw"])
def test_weight_decay_does_not_hide_which_layers_scale_does_not_matter(rule: str, tmp_path: Path) -> None:
    def first_rate(name: str, *settings: str) -> float:
        experiment = nothing_but_the_task(tmp_path).with_settings("train.updates=2", f"rule.name={rule}", *settings)
        rate: float = simulate(experiment, tmp_path / name).metrics[0]["learning_rate"]
        return rate

    normalised = ("task.arguments.norm=group", "task.arguments.width=8")
    without = first_rate("without", *normalised)
    assert first_rate("with", *normalised, "rule.weight_decay=0.1") == without
    assert first_rate("plain", "task.arguments.width=8") > 1.05 * without


def is_the_default(experiment: Experiment) -> bool:
    # Without what the target does not look at, and without what belongs to the task.
    rule, tuner = replace(experiment.rule, weight_decay=0.0), replace(experiment.tuner, learning_rate=0.1, robust=True)
    return (rule, tuner) == (RuleOptions(), TunerOptions())


@pytest.mark.parametrize("name", ["cifar10_long", "shakespeare_long"])
def test_what_a_shipped_sweep_calls_nothing_tuned_is_the_default(name: str) -> None:
    cells = [cell for cell in load_grid(find_grid(name)).cells if cell.variant == "nothing tuned"]
    plain = [cell.point.experiment for cell in cells if cell.swept.get("tuner.lr_factor", 1.0) == 1.0]
    assert plain
    assert all(is_the_default(experiment) for experiment in plain)


def test_what_the_demo_calls_nothing_tuned_is_the_default() -> None:
    scene = SCENES[-1]
    assert "nothing tuned" in scene.title
    assert is_the_default(load_experiment("digits_momentum_async16", scene.settings))
    assert not is_the_default(load_experiment("digits_momentum_async16", SCENES[0].settings))
