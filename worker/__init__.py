"""Computes gradients: a `Task` says of what, a `ParameterClient` takes them to the server."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.client import ParameterClient, Snapshot
    from worker.connection import RunOver
    from worker.evaluate import Evaluator
    from worker.gradient import Gradient
    from worker.load import load_task
    from worker.task import Shard, Task

__all__ = [
    "Evaluator",
    "Gradient",
    "ParameterClient",
    "RunOver",
    "Shard",
    "Snapshot",
    "Task",
    "load_task",
]

_HOME = {
    "Evaluator": "evaluate",
    "Gradient": "gradient",
    "ParameterClient": "client",
    "RunOver": "connection",
    "Shard": "task",
    "Snapshot": "client",
    "Task": "task",
    "load_task": "load",
}


def __getattr__(name: str) -> Any:
    """Import on first use: what needs no torch need not wait for it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
