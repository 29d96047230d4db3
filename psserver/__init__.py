"""Owns the parameters and applies each gradient as it arrives: `ParameterServer` decides, `serve` talks."""

from psserver.admission import Model, Plan
from psserver.checkpoint import Checkpoints, latest_checkpoint, load_checkpoint
from psserver.metrics import RunRecord
from psserver.options import CheckpointOptions, RuleOptions, ServerOptions
from psserver.serve import serve
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
