"""Chooses learning rate and momentum from what it measures; knows tensors, floats and versions only.

`YellowFin` is a `torch.optim.Optimizer` for one process. `Tuner`, made by `build` from `TunerOptions`, is the same
mathematics for a parameter server that sees one gradient after another.
"""

from tuner.optimizer import YellowFin
from tuner.options import TunerOptions
from tuner.target import NonFiniteGradient
from tuner.tuner import Settings, Tuner, build

__all__ = ["NonFiniteGradient", "Settings", "Tuner", "TunerOptions", "YellowFin", "build"]
