"""The user's learning-rate factor in the form of an optimizer, so that torch's own schedulers can drive it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class LearningRateFactor(torch.optim.Optimizer):
    """For each parameter group of `YellowFin`, a group whose "lr" is the factor on the α that was tuned.

    Give it, instead of the optimizer itself, to any scheduler of `torch.optim.lr_scheduler`. Its own `step` moves
    nothing; `YellowFin.step` calls it, which is how schedulers learn that a step was made.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 1.0})

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move nothing; the closure is not called."""
