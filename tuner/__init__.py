"""Chooses learning rate and momentum from what it measures; knows tensors, floats and versions only.

`YellowFin` is a `torch.optim.Optimizer` for one process. `Tuner`, made by `build` from `TunerOptions`, is the same
mathematics for a parameter server that sees one gradient after another.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.from_options import build
    from tuner.layers import Strides
    from tuner.loop import Pull
    from tuner.optimizer import YellowFin
    from tuner.options import TunerOptions
    from tuner.target import NonFiniteGradient
    from tuner.tuner import Settings, Tuner

__all__ = ["NonFiniteGradient", "Pull", "Settings", "Strides", "Tuner", "TunerOptions", "YellowFin", "build"]

_HOME = {
    "NonFiniteGradient": "target",
    "Pull": "loop",
    "Settings": "tuner",
    "Strides": "layers",
    "Tuner": "tuner",
    "TunerOptions": "options",
    "YellowFin": "optimizer",
    "build": "from_options",
}


def __getattr__(name: str) -> Any:
    """Import on first use: what needs no torch need not wait for it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
