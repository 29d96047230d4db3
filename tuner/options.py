"""The `[tuner]` section of an experiment: which target, which loop, which estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class TunerOptions:
    """What chooses the learning rate and the momentum.

    target:        "yellowfin" measures both from the gradients; the others are the user's own numbers.
    learning_rate: of constant, step and cosine targets.
    momentum:      target momentum of constant, step and cosine targets (β1 when the rule is Adam).
    milestones:    updates at which the step target multiplies its learning rate by `decay`.
    decay:         factor of the step target.
    warmup:        updates of linear warm-up of the step and cosine targets.
    lr_factor:     multiplies whatever learning rate the target chose.
    beta:          decay of YellowFin's exponential averages.
    window:        gradients over which YellowFin takes the curvature range.
    smoothing:     "ema" averages YellowFin's α and μ over time, "none" applies each step's own.
    clip:          clip the gradient norm at √h_max (YellowFin only).
    loop:          "open" applies the target momentum; "closed" steers the measured total momentum to it.
    gain:          γ of the closed loop.
    momentum_min, momentum_max: the clamp of the closed loop.
    sample:        coordinates over which total momentum is measured; 0 means all of them.
    history:       versions the estimator remembers (staleness it can measure, plus 3).
    """

    target: Literal["yellowfin", "constant", "step", "cosine"] = "yellowfin"
    learning_rate: float = 0.1
    momentum: float = 0.9
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    warmup: int = 0
    lr_factor: float = 1.0
    beta: float = 0.999
    window: int = 20
    smoothing: Literal["none", "ema"] = "ema"
    clip: bool = True
    loop: Literal["open", "closed"] = "closed"
    gain: float = 0.01
    momentum_min: float = -0.9
    momentum_max: float = 0.999
    sample: int = 2048
    history: int = 256

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
