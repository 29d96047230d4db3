"""From an experiment to the objects that run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from launch.experiment import Experiment
from psserver import (
    Checkpoints,
    Model,
    ParameterServer,
    Plan,
    RunRecord,
    latest_checkpoint,
    load_checkpoint,
)
from psserver.errors import CheckpointError
from psserver.rules import state_vectors
from psserver.soap import matrix_values, spare_sample, turned_share
from tuner import Tuner
from tuner import build as build_tuner
from worker import Evaluator, Task, load_task
from worker.layout import Layout
from worker.model import build_model, pick_device


def make_task(experiment: Experiment) -> Task:
    """Call the experiment's task function."""
    directory = experiment.data.dir
    return load_task(experiment.task.function, experiment.task.arguments, Path(directory) if directory else None)


def make_evaluator(experiment: Experiment, task: Task) -> Evaluator:
    """What evaluates versions of a run, beside it or afterwards."""
    options = experiment.evaluate
    return Evaluator(task, pick_device(options.device, task), experiment.train.seed, options.statistics)


def initial_model(experiment: Experiment, task: Task) -> tuple[Model, Layout]:
    """The model as the seed makes it, as the server takes it, and where each parameter lies in it."""
    module = build_model(task, experiment.train.seed, torch.device("cpu"))
    layout = Layout.of(module)
    buffers = layout.flatten_buffers(module).numpy().copy()
    parameters = layout.flatten(module).numpy().copy()
    known = layout.layers, layout.embeddings, layout.fans, layout.tensors
    return Model(parameters, buffers, layout.digest, *known), layout


def make_tuner(experiment: Experiment, size: int, of: Model | Layout) -> Tuner:
    """The experiment's tuner for the `size` parameters of a model, in its layers."""
    train, rule, options = experiment.train, experiment.rule, experiment.tuner
    return build_tuner(
        options,
        size,
        train.updates,
        train.seed,
        of.layers,
        rule.gradient_decay,
        of.embeddings,
        of.fans,
        spare_sample(rule, of.tensors, size, options.sample, train.seed),
        turned_share(rule, of.tensors, size),
    )


def make_server(
    experiment: Experiment, model: Model, run_dir: Path | None, *, resume: bool, clock: Callable[[], float]
) -> tuple[ParameterServer, Checkpoints | None]:
    """The server, with its record and checkpoints in `run_dir` if there is one.

    Raises CheckpointError when there is nothing to resume from, it is another model's, or the disk is full.
    """
    train, tuner = experiment.train, experiment.tuner
    state = _state(run_dir, model) if resume and run_dir is not None else None
    record = RunRecord(run_dir, state["version"] if state else None) if run_dir is not None else None
    try:
        server = ParameterServer(
            model,
            Plan(train.updates, train.workers, train.seed, tuner.measure_every, tuner.search_every),
            make_tuner(experiment, model.parameters.size, model),
            experiment.rule,
            experiment.server,
            record,
            clock,
            state,
        )
    except BaseException:
        if record is not None:
            record.close()
        raise
    if run_dir is None:
        return server, None
    try:
        return server, Checkpoints(run_dir / "checkpoints", experiment.checkpoint, checkpoint_bytes(experiment, model))
    except BaseException:
        server.close()
        raise


def checkpoint_bytes(experiment: Experiment, model: Model) -> int:
    """At least as many as a checkpoint of the run takes.

    Two versions, at most two vectors of the tuner's target, the rule's, and its matrices; and the sampled coordinates
    of the versions that each estimator, and YellowFin's guard, remembers.
    """
    size, train, tuner = model.parameters.size, experiment.train, experiment.tuner
    vectors = 4 + state_vectors(experiment.rule, experiment.server.sources(train.workers))
    remembering = 1 + len(tuner.beside) + (tuner.target == "yellowfin" and tuner.robust)
    versions = remembering * min(tuner.history, train.updates + 1)
    sampled = min(tuner.sample or size, size)
    # A coordinate's number takes two float32 values; the rest is in the header.
    matrices = matrix_values(experiment.rule, model.tensors) if experiment.rule.name == "soap" else 0
    return 4 * (matrices + vectors * size + (versions + 2 * remembering) * sampled + model.buffers.size) + (1 << 20)


def _state(run_dir: Path, model: Model) -> dict[str, Any]:
    path = latest_checkpoint(run_dir / "checkpoints")
    if path is None:
        raise CheckpointError(f"--resume: expected a checkpoint in {run_dir / 'checkpoints'}, found none")
    state = load_checkpoint(path)
    if state["layout"] != model.layout:
        raise CheckpointError(
            f"{path}: expected a checkpoint of this model (layout {model.layout:.12}), got layout "
            f"{state['layout']:.12}; resume with the experiment that the run was started with"
        )
    return state
