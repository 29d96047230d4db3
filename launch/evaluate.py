"""Evaluates a checkpoint again, with nothing but the run's folder."""

from __future__ import annotations

from pathlib import Path

from launch.build import make_evaluator, make_task
from launch.experiment import load_experiment
from launch.run import Run
from psserver import load_checkpoint
from psserver.errors import ConfigurationError


def evaluate_run(run_dir: Path, checkpoint: Path | None = None, data_dir: Path | None = None) -> dict[str, float]:
    """The task's numbers for a checkpoint (the newest by default) of a run."""
    settings = [f"data.dir={str(data_dir)!r}"] if data_dir else []
    experiment = load_experiment(run_dir, settings)
    task = make_task(experiment)
    if task.evaluate is None:
        raise ConfigurationError(f"{experiment.task.function}: expected a task with `evaluate`, it has none")
    state = load_checkpoint(checkpoint or Run(run_dir).checkpoint())
    evaluator = make_evaluator(experiment, task)
    numbers = evaluator.evaluate(state["parameters"], state["buffers"])
    return {"update": state["version"], **numbers}
