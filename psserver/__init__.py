"""Owns the parameters and applies each gradient as it arrives: `ParameterServer` decides, `serve` talks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psserver.admission import Model, Plan
    from psserver.checkpoint import Checkpoints, latest_checkpoint, load_checkpoint
    from psserver.metrics import RunRecord
    from psserver.options import CheckpointOptions, RuleOptions, ServerOptions
    from psserver.router import serve
    from psserver.server import ParameterServer

__all__ = [
    "CheckpointOptions",
    "Checkpoints",
    "Model",
    "ParameterServer",
    "Plan",
    "RuleOptions",
    "RunRecord",
    "ServerOptions",
    "latest_checkpoint",
    "load_checkpoint",
    "serve",
]

_HOME = {
    "CheckpointOptions": "options",
    "Checkpoints": "checkpoint",
    "Model": "admission",
    "ParameterServer": "server",
    "Plan": "admission",
    "RuleOptions": "options",
    "RunRecord": "metrics",
    "ServerOptions": "options",
    "latest_checkpoint": "checkpoint",
    "load_checkpoint": "checkpoint",
    "serve": "router",
}


def __getattr__(name: str) -> Any:
    """Import on first use: options, errors and messages need no torch, and must not wait for it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
