"""Turns an experiment into processes: `train` for real ones, `simulate` for exact staleness in one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launch.api import simulate, train
    from launch.experiment import Experiment, load_experiment
    from launch.run import Run

__all__ = ["Experiment", "Run", "load_experiment", "simulate", "train"]

_HOME = {
    "Experiment": "launch.experiment",
    "Run": "launch.run",
    "load_experiment": "launch.experiment",
    "simulate": "launch.api",
    "train": "launch.api",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `yfps --help` and the supervisor need not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'launch' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
