"""A finished run, as Python sees it: its metrics, its summary and its trained parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from launch.build import make_task
from launch.experiment import load_experiment
from launch.rundir import RunDir, read_rows, read_summary
from psserver import latest_checkpoint, load_checkpoint
from psserver.errors import CheckpointError, LayoutError
from worker import Evaluator


class Run:
    """What `train` and `simulate` return; `Run(folder)` opens an earlier one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        """Where it lies."""
        return f"Run({str(self.path)!r})"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one an update."""
        return list(read_rows(RunDir(self.path).metrics))

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The rows of evaluations.jsonl."""
        return list(read_rows(RunDir(self.path).evaluations))

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json; {} when the run did not get that far."""
        return read_summary(RunDir(self.path).summary)

    def checkpoint(self) -> Path:
        """The newest checkpoint. Raises CheckpointError when there is none."""
        path = latest_checkpoint(RunDir(self.path).checkpoints)
        if path is None:
            raise CheckpointError(f"{self.path}: expected a checkpoint, found none")
        return path

    def state_dict(self, checkpoint: Path | None = None) -> dict[str, Tensor]:
        """The trained model's `state_dict`, with the BatchNorm statistics it is evaluated with; for `load_state_dict`.

        Those are computed over training batches, unless `evaluate.statistics` is 0.
        """
        experiment = load_experiment(self.path)
        state = load_checkpoint(checkpoint or self.checkpoint())
        seed, statistics = experiment.train.seed, experiment.evaluate.statistics
        evaluator = Evaluator(make_task(experiment), torch.device("cpu"), seed, statistics)
        if evaluator.layout.digest != state["layout"]:
            raise LayoutError(f"{self.path}: the task's model has changed since this checkpoint was written")
        return evaluator.load(state["parameters"], state["buffers"]).state_dict()
