"""The lives of a run's server: what is written of each, and a replay that follows the settings of all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch import load_experiment, train
from launch.lives import changes, read_lives, record_life, stretches
from launch.replay import replay
from launch.replay_show import sentences
from launch.rundir import RunDir
from launch.trace import read_arrivals
from psserver.errors import CheckpointError, ConfigurationError

SMALL = load_experiment("quadratic", ["train.updates=40"])
LONGER = SMALL.with_settings("train.updates=90", "train.seed=3")


def arrivals(folder: Path, *updates: int) -> None:
    row = {"worker": 0, "step": 1, "version": 0, "fresh": False, "refused": None}
    (folder / "arrivals.jsonl").write_text("".join(json.dumps(row | {"update": one}) + "\n" for one in updates))


def test_a_replay_goes_on_with_the_settings_that_the_run_was_resumed_with(tmp_path: Path) -> None:
    settings = [
        "train.workers=2",
        "train.updates=40",
        "checkpoint.every=20",
        "checkpoint.keep=9",
        "evaluate.every=0",
        "launch.threads=1",
    ]
    settings += ["launch.evaluator=false", "rule.name=adam", "tuner.target=distance", "tuner.loop=both"]
    train("quadratic", tmp_path / "run", settings=[*settings, "task.arguments.size=30"])
    changed = ["train.updates=100", "rule.weight_decay=0.01", "train.seed=5"]
    train(tmp_path / "run", tmp_path / "run", settings=changed, resume=True)
    found = replay(tmp_path / "run")
    assert (found.difference, found.updates, found.checkpoints) == (None, 100, [20, 40, 60, 80, 100])
    resumed = (
        "resumed at update 40 with train.updates=100 (was 40), train.seed=5 (was 1), rule.weight_decay=0.01 (was 0.0)"
    )
    assert found.notes == [resumed]
    assert replay(tmp_path / "run", until=40).identical

    lost = RunDir(tmp_path / "run").lives
    whole = lost.read_text()
    lost.write_text(whole.splitlines(True)[1])
    found = replay(tmp_path / "run")
    assert found.difference is not None
    assert found.notes[0] == "the settings until update 40 were not recorded; those from there on were taken"
    lost.unlink()
    said = list(sentences(replay(tmp_path / "run"), tmp_path / "run"))
    assert "The run was resumed at update 40: a setting that was changed there is not in the record." in said[3].strip()


def test_a_replay_of_a_resumed_run_has_all_layers_and_the_weight_decay(tmp_path: Path) -> None:
    (tmp_path / "layers.toml").write_text(
        '[task]\nfunction = "worker.zoo.digits:cnn"\n[task.arguments]\nwidth = 4\nnorm = "group"\nbatch = 4\n'
    )
    settings = ["train.workers=2", "train.updates=30", "checkpoint.every=15", "evaluate.every=0", "launch.threads=1"]
    settings += ["launch.evaluator=false", "rule.weight_decay=0.01"]
    train(tmp_path / "layers.toml", tmp_path / "run", settings=settings)
    train(tmp_path / "run", tmp_path / "run", settings=["train.updates=60"], resume=True)
    found = replay(tmp_path / "run")
    assert (found.difference, found.updates) == (None, 60)


def test_a_life_of_which_nothing_is_left_is_forgotten(tmp_path: Path) -> None:
    record_life(tmp_path, SMALL, 0)
    arrivals(tmp_path, 1, 2, 3, 3)
    record_life(tmp_path, LONGER, 3)
    record_life(tmp_path, SMALL, 3)
    arrivals(tmp_path, 1, 2, 3, 3, 3, 4)
    record_life(tmp_path, LONGER, 4)
    lives = read_lives(tmp_path, ["train.workers=7"])
    assert [(life.update, life.arrivals, life.experiment.train.updates) for life in lives] == [
        (0, 0, 40), (3, 4, 40), (4, 6, 90),
    ]  # fmt: skip
    assert {life.experiment.train.workers for life in lives} == {7}
    rows = read_arrivals(tmp_path)
    assert [[row.update for row in part] for _, part in stretches(lives, rows)] == [[1, 2, 3, 3], [3, 4], []]
    assert [len(part) for _, part in stretches(lives, rows[:2])] == [2, 0, 0]
    arrivals(tmp_path)  # started anew
    record_life(tmp_path, SMALL, 0)
    assert len(read_lives(tmp_path)) == 1


def test_a_run_that_recorded_no_lives_has_one_by_its_experiment(tmp_path: Path) -> None:
    SMALL.write(tmp_path / "experiment.toml")
    (life,) = read_lives(tmp_path)
    assert (life.update, life.arrivals, life.experiment.train) == (0, 0, SMALL.train)


def test_what_changed_is_told_by_key() -> None:
    assert changes(SMALL, SMALL) == []
    assert changes(SMALL, LONGER) == ["train.updates=90 (was 40)", "train.seed=3 (was 1)"]
    sizes = changes(SMALL, SMALL.with_settings("task.arguments.size=9"))
    assert [text.partition("=")[0] for text in sizes] == ["task.arguments.size"]


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "lives.jsonl").write_text('{"update": 0, "arrivals": 0}\n')
    with pytest.raises(ConfigurationError, match=r"lives\.jsonl, line 1: expected update, arrivals and experiment"):
        read_lives(tmp_path)


def test_a_full_disk_is_told_in_words_and_what_was_written_stays(tmp_path: Path) -> None:
    record_life(tmp_path, SMALL, 0)
    arrivals(tmp_path, 1, 2)
    (tmp_path / "lives.part").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"lives\.jsonl: expected to write .*No space left on device"):
        record_life(tmp_path, LONGER, 2)
    assert [life.update for life in read_lives(tmp_path)] == [0]
