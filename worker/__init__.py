"""Computes gradients: a `Task` says of what, a `ParameterClient` takes them to the server."""

from worker.client import ParameterClient, RunOver, Snapshot
from worker.evaluate import Evaluator
from worker.gradient import Gradient
from worker.load import load_task
from worker.task import Shard, Task

__all__ = ["Evaluator", "Gradient", "ParameterClient", "RunOver", "Shard", "Snapshot", "Task", "load_task"]
