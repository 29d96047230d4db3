"""What a target is: block by block it looks at a gradient, decides α and μ, then absorbs the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from tuner.layers import Strides

State = dict[str, Any]
"""Nested dict whose leaves are Tensor, float, int, bool, str, None or lists of those."""


class NonFiniteGradient(ValueError):
    """A gradient holds NaN or infinity (or its squared norm exceeds a double). Nothing has changed because of it."""


@dataclass(frozen=True)
class Decision:
    """What a target chose for one gradient.

    learning_rate: α, before the user's factor.
    momentum:      μ*, the target momentum.
    scale:         in (0, 1]: what clipping multiplies the gradient by.
    gradient_norm: ‖g‖ before clipping, weight decay included.
    floor:         a learning rate that staleness of few workers is no reason to go below; 0 where it knows of none.
    step:          αh, what α is after warm-up in parts of 1/h for the curvature h it was chosen for; None where α was
                   chosen for none.
    strides:       what α is multiplied by in each layer; None for 1 everywhere.
    """

    learning_rate: float
    momentum: float
    scale: float
    gradient_norm: float
    floor: float = 0.0
    step: float | None = None
    strides: Strides | None = None


class Target(Protocol):
    """Chooses α and μ* from gradients.

    For every gradient: `look` at each block of it once, `decide`, then `absorb` each block once. Two passes over the
    gradient, and the statistics of a gradient are already used for its own step. Blocks are disjoint slices of the
    flat vector of N parameters; a block that was not looked at counts as zero and must be absorbed as zero.
    """

    def hear(self, loss: float, staleness: int = 0) -> None:
        """Take the loss and the staleness, in updates, of the gradient about to be looked at; optional."""

    def look(self, block: slice, gradient: Tensor, origin: Tensor | None = None) -> None:
        """Take the sums that `decide` needs over one block (floating point, [length of block], unclipped).

        origin: that block of the version the gradient was computed at; only some targets need it.
        """

    def look_curvature(self, h_max: float, h_mean: float) -> None:
        """Take what the worker measured of the Hessian of the same gradient's loss, before `decide`.

        h_max: largest magnitude of an eigenvalue, at least 0. h_mean: mean of the diagonal. Few gradients have one.
        """

    def decide(self) -> Decision:
        """Choose for the gradient just looked at.

        Raises NonFiniteGradient, with the state as if that gradient had never been seen; RuntimeError before any look.
        """

    def absorb(self, block: slice, gradient: Tensor) -> None:
        """Take one block of the same gradient (still unclipped) into the running averages."""

    def state_dict(self) -> State:
        """Everything that a bit-exact continuation needs; shares no memory with the target."""

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
