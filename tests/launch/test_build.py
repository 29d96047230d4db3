"""From an experiment to a server: what it starts with, and what it refuses to continue from."""

from __future__ import annotations

import math
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import Experiment, load_experiment, simulate
from launch.build import checkpoint_bytes, initial_model, make_server, make_task
from psserver.errors import CheckpointError, SharedMemoryError
from tuner.beyond import EXCESS, TURNED
from tuner.first_distance import FIRST
from tuner.warmup import linear

SMALL = ["task.arguments={size=50}", "train.updates=8", "server.shared_memory=false", "checkpoint.every=4"]


def build(experiment: Experiment, folder: Path | None, resume: bool = False) -> Any:
    model, _ = initial_model(experiment, make_task(experiment))
    return make_server(experiment, model, folder, resume=resume, clock=time.monotonic)


def test_the_seed_decides_the_model() -> None:
    models = [
        initial_model(experiment, make_task(experiment))[0]
        for experiment in (load_experiment("digits_async16", [f"train.seed={seed}"]) for seed in (1, 1, 2))
    ]
    assert np.array_equal(models[0].parameters, models[1].parameters)
    assert not np.array_equal(models[0].parameters, models[2].parameters)
    assert models[0].layout == models[2].layout


def test_the_tuner_is_told_which_layers_are_embeddings() -> None:
    experiment = load_experiment("shakespeare_transformer_async16", [*SMALL[1:], *DEFAULT])
    model, layout = initial_model(experiment, make_task(experiment))
    assert model.embeddings == layout.embeddings == (0, 1), "tokens and places"
    server, _ = build(experiment, None)
    assert server.state_dict()["tuner"]["target"]["sparsity"]["embeddings"] == [0, 1]
    server.close()


def test_the_tuner_is_told_of_the_fan_in_of_every_layer() -> None:
    experiment = load_experiment("digits_async16", [*SMALL[1:], *DEFAULT])
    model, layout = initial_model(experiment, make_task(experiment))
    assert model.fans == layout.fans == (9, 144, 512, 32), "3 x 3, 16 times that, and what the linear layers take"


def test_the_tuner_is_told_how_much_the_rule_turns_into_an_eigenbasis() -> None:
    experiment = load_experiment("shakespeare_transformer_async16", [*SMALL[1:], *DEFAULT])
    model, layout = initial_model(experiment, make_task(experiment))
    turned = sum(math.prod(shape) for _, shape in layout.tensors) / model.parameters.size
    assert 0.6 < turned < 0.95, "all but embeddings and vectors"
    for rule, share in (("soap", turned), ("adam", 0.0)):
        server, _ = build(
            load_experiment("shakespeare_transformer_async16", [*SMALL[1:], *DEFAULT, f"rule.name={rule}"]), None
        )
        assert server._tuner.loop.borne == pytest.approx(EXCESS + (TURNED - EXCESS) * share)
        server.close()


AT_NOTHING = """
import torch
from torch import nn
from worker import Task


def model():
    linear = nn.Linear(64, 10)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(linear)


def batches(shard):
    while True:
        yield torch.ones(4, 64), torch.zeros(4, dtype=torch.long)


def task():
    return Task(model=model, loss=lambda m, rows: nn.functional.cross_entropy(m(rows[0]), rows[1]), batches=batches)
"""


def test_weights_that_start_at_nothing_step_by_what_their_shape_is_worth(tmp_path: Path) -> None:
    (tmp_path / "at_nothing.py").write_text(AT_NOTHING)
    (tmp_path / "at_nothing.toml").write_text('[task]\nfunction = "at_nothing.py:task"\n[train]\nworkers = 1\n')
    run = simulate(load_experiment(tmp_path / "at_nothing.toml", ["train.updates=3", *DEFAULT]), tmp_path / "run")
    assert run.metrics[0]["learning_rate"] == pytest.approx(FIRST / 16 * linear(0, 3), rel=1e-5)


def test_a_server_without_a_folder_writes_nothing() -> None:
    server, checkpoints = build(load_experiment("quadratic", SMALL), None)
    assert (server.version, server.size, checkpoints) == (0, 50, None)
    server.close()


DEFAULT = ["rule.name=adam", "tuner.target=distance", "tuner.loop=both"]
CONSTANT = ["tuner.target=constant", "tuner.loop=open"]


@pytest.mark.parametrize("settings", [[], ["rule.name=momentum_sgd", *CONSTANT], ["rule.name=adam", *CONSTANT]])
def test_a_server_continues_where_the_checkpoint_is(settings: list[str], tmp_path: Path) -> None:
    experiment = load_experiment("quadratic", [*SMALL, *settings])
    simulate(experiment, tmp_path / "run")
    server, checkpoints = build(experiment, tmp_path / "run", resume=True)
    assert server.version == 8
    assert checkpoints is not None
    saved = checkpoints.save(8, server.state_dict())
    assert saved.stat().st_size < 4 * 6 * 50 + (1 << 20)
    server.close()


@pytest.mark.parametrize(
    "settings",
    [
        ["tuner.history=60"],
        ["tuner.sample=0", "task.arguments.size=30000"],
        ["rule.name=momentum_sgd", "tuner.target=yellowfin", "tuner.loop=closed", "tuner.beside=['regression','lag']"],
    ],
)
def test_room_is_reserved_for_all_that_a_checkpoint_holds(settings: list[str], tmp_path: Path) -> None:
    plan = ["task.arguments={size=400000}", "train.updates=64", "train.workers=4", "server.shared_memory=false"]
    experiment = load_experiment("quadratic", [*plan, *settings])
    run = simulate(experiment, tmp_path / "run")
    model, _ = initial_model(experiment, make_task(experiment))
    (saved,) = (run.path / "checkpoints").glob("*.safetensors")
    wanted = checkpoint_bytes(experiment, model)
    assert saved.stat().st_size <= wanted < saved.stat().st_size + 4 * 2 * model.parameters.size + (2 << 20)


def test_there_must_be_something_to_resume_from(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a checkpoint in .*, found none"):
        build(load_experiment("quadratic", SMALL), tmp_path, resume=True)


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    simulate("quadratic", tmp_path / "run", settings=SMALL)
    other = load_experiment("quadratic", [*SMALL, "task.arguments.size=51"])
    with pytest.raises(CheckpointError, match="expected a checkpoint of this model"):
        build(other, tmp_path / "run", resume=True)


@pytest.mark.parametrize("settings", [CONSTANT, ["rule.name=momentum_sgd", *CONSTANT]])
def test_a_checkpoint_of_another_target_or_rule_is_refused_and_leaves_no_memory_behind(
    settings: list[str], tmp_path: Path
) -> None:
    simulate(load_experiment("quadratic", [*SMALL, *settings]), tmp_path / "run")
    memory = tmp_path / "memory"
    memory.mkdir()
    here = [*SMALL, "server.shared_memory=true", f"server.shared_memory_dir={memory}"]
    with pytest.raises(CheckpointError, match="--resume: expected a checkpoint that this rule and this tuner"):
        build(load_experiment("quadratic", here), tmp_path / "run", resume=True)
    assert not list(memory.iterdir())


def test_a_shortage_of_room_leaves_no_file_open_and_no_memory_behind(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(CheckpointError, match="expected room"):
            build(load_experiment("quadratic", ["task.arguments={size=50}"]), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_shortage_of_shared_memory_is_told_in_the_experiments_words(tmp_path: Path) -> None:
    experiment = load_experiment("quadratic", [f"server.shared_memory_dir={tmp_path / 'none'}"])
    with pytest.raises(SharedMemoryError, match=r"server\.shared_memory=false"):
        build(experiment, tmp_path / "run")
