"""Published corrections for stale gradients, around any update rule: α/τ and delay compensation.

x_v is the version a gradient was computed at, x_t the one it is applied to, τ = t − v its staleness. With τ = 0 every
correction leaves the update as it is, bit for bit. Each follows from the trajectory, the gradient and v alone, and
from a state that is saved with the rule's. `psserver.gap` has one more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from psserver.rule_state import State


class Inner(Protocol):
    """What a correction asks of the rule it corrects; see `psserver.rules.Rule`."""

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set the scalars of an update."""

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Write one block of the new version."""

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """What α multiplied."""

    def state_dict(self) -> State:
        """Everything the next update depends on."""

    def load_state_dict(self, state: State) -> None:
        """Continue from `state`."""


def inverse_rate(learning_rate: float, staleness: int) -> float:
    """α / max(τ, 1): the learning rate of a gradient that is τ updates old.

    Source: Zhang, Gupta, Lian and Liu (2016), Staleness-aware Async-SGD.
    """
    return learning_rate / max(staleness, 1)


def compensate(gradient: Tensor, x: Tensor, origin: Tensor, strength: float, out: Tensor) -> Tensor:
    """g + λ g ⊙ g ⊙ (x_t − x_v), written into `out`: a first-order guess at the gradient at x_t; λ is `strength`.

    All tensors are of one shape; `out` must not overlap the others. g ⊙ g stands for the diagonal of the Hessian.
    Every operation rounds once. Source: Zheng et al. (2017), delay compensation with constant λ (DC-ASGD-c).
    """
    torch.sub(x, origin, out=out)
    return out.mul_(gradient).mul_(gradient).mul_(strength).add_(gradient)


class Corrected:
    """A rule with a correction; this one corrects nothing. The correction's settings of an update come by `arrive`."""

    needs_origin = False
    """x_v is compared with, so a gradient whose x_v is no longer kept cannot be applied."""
    compensates = False
    """The gradient itself is changed, before weight decay is added and before the tuner looks at it."""

    def __init__(self, rule: Inner) -> None:
        self.rule = rule
        self._staleness = 0
        self._origin: Tensor | None = None

    def arrive(self, staleness: int, origin: Tensor | None) -> None:
        """An update by a gradient of that τ follows; origin: x_v [N], given where it is needed and τ is not 0."""
        self._staleness, self._origin = staleness, origin

    def compensate(self, gradient: Tensor, x: Tensor, take: Callable[[Tensor], Tensor], out: Tensor) -> Tensor:
        """The gradient that everything else sees, at the coordinates that `take` takes of a vector [N]."""
        return gradient

    def begin(self, learning_rate: float, momentum: float) -> None:
        """As the rule."""
        self.rule.begin(learning_rate, momentum)

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """As the rule."""
        self.rule.apply(block, new, x, previous, gradient, scratch)

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """As the rule."""
        return self.rule.applied(gradient, x, sample)

    def state_dict(self) -> State:
        """The rule's."""
        return self.rule.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit."""
        self.rule.load_state_dict(state)


class InverseRate(Corrected):
    """`inverse_rate`. The tuner chooses α from the gradients as they are; what it measures with is divided as well."""

    def begin(self, learning_rate: float, momentum: float) -> None:
        """With α / max(τ, 1)."""
        self.rule.begin(inverse_rate(learning_rate, self._staleness), momentum)

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """The rule's, divided by max(τ, 1), since the estimator multiplies by the tuner's α."""
        return self.rule.applied(gradient, x, sample) / max(self._staleness, 1)


class DelayCompensated(Corrected):
    """`compensate`. The tuner sees the compensated gradient; weight decay is that of x_t and is added afterwards."""

    needs_origin = compensates = True

    def __init__(self, rule: Inner, strength: float) -> None:
        super().__init__(rule)
        self._strength = strength

    def compensate(self, gradient: Tensor, x: Tensor, take: Callable[[Tensor], Tensor], out: Tensor) -> Tensor:
        """Compensated, in `out`; the gradient itself when it is not stale."""
        if self._origin is None:
            return gradient
        return compensate(gradient, x, take(self._origin), self._strength, out)
