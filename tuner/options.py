"""The `[tuner]` section of an experiment: which target, which loop, which estimator."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import ClassVar, Literal

ESTIMATORS = "'median', 'lag' or 'regression'"
CURVATURES = "'gradient-norm' or 'hessian'"
DISTANCES = "'gradients' or 'line-search'"
TARGETS = "'distance', 'yellowfin', 'constant', 'step' or 'cosine'"
LOOPS = "'open', 'closed' or 'both'"


def _need(condition: bool, field: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{field}: expected {expected}, got {got!r}")


@dataclass(frozen=True)
class TunerOptions:
    """What chooses the learning rate and the momentum.

    target:        "distance" learns the learning rate from how far the optimum turns out to be, and lets it fall
                   towards the end of the run, for rules of Adam's kind (the few gradients whose x_v is gone, after
                   a restart or a lost connection, are refused); "yellowfin" measures learning rate and
                   momentum from the gradients; the others are the user's own numbers.
    learning_rate: of constant, step and cosine targets.
    momentum:      target momentum of all targets but YellowFin's (β1 when the rule is Adam).
    milestones:    updates at which the step target multiplies its learning rate by `decay`.
    decay:         factor of the step target.
    warmup:        updates of linear warm-up of the step and cosine targets.
    lr_factor:     multiplies whatever learning rate the target chose.
    beta:          decay of YellowFin's exponential averages.
    window:        gradients over which YellowFin takes the curvature range.
    smoothing:     "none" applies each step's own α and μ, "ema" averages them over time; the first is the default by
                   measurement (docs/measurements.md).
    robust:        with the YellowFin target: hold its gain to what was tried, measure its learning rate by the loss,
                   slow it for stale gradients and where curvature asks for it; false is the published rule.
    every:         measure total momentum and YellowFin's variance and distance at every k-th update only.
    clip:          clip the gradient norm at √h_max (YellowFin only).
    curvature:     "gradient-norm" takes ‖g‖² for curvature, as the article does; "hessian" has the workers measure it
                   by Hessian-vector products (YellowFin only).
    curvature_every: pushes of a worker between two such measurements.
    distance_by:   what YellowFin's distance D to the optimum is measured by: "gradients" takes averages of their norms,
                   as the article does; "line-search" has the workers look for the least loss along −g. Not to be mixed
                   up with the target "distance", which learns a distance of its own and takes "gradients" only.
    distance_every: pushes of a worker between two line searches.
    loop:          "open" applies the target as it is, told of no staleness; "closed" steers the measured total
                   momentum to the target's, as in the article; "both" translates target momentum and learning rate to
                   the staleness there is.
    estimator:     of total momentum: "median" over coordinates of the trajectory, as in the article; "lag", from the
                   staleness the server sees; "regression", from what staleness did to the gradients applied.
    beside:        further estimators that are measured and recorded, as total_momentum_NAME, and steer nothing.
    gain:          γ of the closed loop.
    momentum_min, momentum_max: the clamp of the closed loop.
    sample:        coordinates over which total momentum is measured; 0 means all of them.
    history:       versions the estimator remembers (staleness it can measure, plus 3; for the loop "both" plus 4).
    """

    target: Literal["distance", "yellowfin", "constant", "step", "cosine"] = "distance"
    learning_rate: float = 0.1
    momentum: float = 0.8
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    warmup: int = 0
    lr_factor: float = 1.0
    beta: float = 0.999
    window: int = 20
    smoothing: Literal["none", "ema"] = "none"
    clip: bool = True
    curvature: Literal["gradient-norm", "hessian"] = "gradient-norm"
    curvature_every: int = 20
    distance_by: Literal["gradients", "line-search"] = "gradients"
    distance_every: int = 20
    robust: bool = True
    every: int = 1
    loop: Literal["open", "closed", "both"] = "both"
    estimator: Literal["median", "lag", "regression"] = "median"
    beside: tuple[Literal["median", "lag", "regression"], ...] = ()
    gain: float = 0.01
    momentum_min: float = -0.9
    momentum_max: float = 0.999
    sample: int = 2048
    history: int = 256

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check the ranges; every test is written so that NaN fails it."""
        _need(self.target in ("distance", "yellowfin", "constant", "step", "cosine"), "target", TARGETS, self.target)
        _need(self.smoothing in ("none", "ema"), "smoothing", "'none' or 'ema'", self.smoothing)
        _need(self.curvature in ("gradient-norm", "hessian"), "curvature", CURVATURES, self.curvature)
        _need(self.curvature_every >= 1, "curvature_every", "1 push or more", self.curvature_every)
        _need(self.distance_by in ("gradients", "line-search"), "distance_by", DISTANCES, self.distance_by)
        if self.target != "yellowfin":
            only = f"'gradients', for the target is {self.target!r} and only 'yellowfin' can use line searches"
            _need(self.distance_by == "gradients", "distance_by", only, self.distance_by)
        _need(self.distance_every >= 1, "distance_every", "1 push or more", self.distance_every)
        _need(self.loop in ("open", "closed", "both"), "loop", LOOPS, self.loop)
        if self.loop == "both":
            _need(self.estimator == "median", "estimator", "'median', which the loop 'both' goes by", self.estimator)
        _need(self.estimator in ("median", "lag", "regression"), "estimator", ESTIMATORS, self.estimator)
        _need(0 < self.learning_rate < inf, "learning_rate", "a finite number above 0", self.learning_rate)
        _need(-1 < self.momentum < 1, "momentum", "a number in (-1, 1)", self.momentum)
        _need(0 < self.lr_factor < inf, "lr_factor", "a finite number above 0", self.lr_factor)
        _need(0 < self.decay <= 1, "decay", "a number in (0, 1]", self.decay)
        _need(self.warmup >= 0, "warmup", "0 or more updates", self.warmup)
        rising = all(a < b for a, b in pairwise((0, *self.milestones)))
        _need(rising, "milestones", "update numbers above 0, each above the one before", self.milestones)
        _need(0 <= self.beta < 1, "beta", "a number in [0, 1)", self.beta)
        _need(self.window >= 1, "window", "1 gradient or more", self.window)
        known = all(name in ("median", "lag", "regression") for name in self.beside)
        _need(known and len(set(self.beside)) == len(self.beside), "beside", f"{ESTIMATORS}, each once", self.beside)
        _need(self.every >= 1, "every", "1 update or more", self.every)
        if "regression" in (self.estimator, *self.beside):
            _need(self.every == 1, "every", "1 with the estimator 'regression', which needs every gradient", self.every)
        _need(0 < self.gain <= 1, "gain", "a number in (0, 1]", self.gain)
        _need(-1 < self.momentum_min <= 0, "momentum_min", "a number in (-1, 0]", self.momentum_min)
        _need(0 <= self.momentum_max < 1, "momentum_max", "a number in [0, 1)", self.momentum_max)
        _need(self.sample >= 0, "sample", "0 (all coordinates) or more", self.sample)
        least = 5 if self.loop == "both" else 3
        _need(self.history >= least, "history", f"{least} versions or more with the loop {self.loop!r}", self.history)

    @property
    def measure_every(self) -> int:
        """Pushes of a worker between two measurements of curvature; 0 when nobody wants any."""
        return self.curvature_every if (self.target, self.curvature) == ("yellowfin", "hessian") else 0

    @property
    def search_every(self) -> int:
        """Pushes of a worker between two line searches; 0 when nobody wants any."""
        return self.distance_every if (self.target, self.distance_by) == ("yellowfin", "line-search") else 0
