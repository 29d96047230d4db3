"""Update rules: what one is, and the one that `[rule]` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from psserver.adaptive import Adagrad, Adam, AdamW, RMSProp
from psserver.gap import GapAware
from psserver.momentum import MomentumSGD, Nesterov
from psserver.options import RuleOptions
from psserver.rule_state import State
from psserver.staleness import DelayCompensated, InverseRate


class Rule(Protocol):
    """An update rule with its state: `begin` an update, `apply` it block by block."""

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set the scalars of the update whose blocks follow."""

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Write one block of the new version into `new`; all tensors are that block's."""

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """What α multiplied in x_{t+1} = x_t + μ (x_t − x_{t−1}) − α a_t, for the total-momentum estimator.

        gradient, x: float32 [K], the gradient and the version it was applied to at the coordinates that `sample` takes
        of a vector [N]. Asked after the blocks of an update, about that update.
        """

    def state_dict(self) -> State:
        """Everything the next update depends on."""

    def load_state_dict(self, state: State) -> None:
        """Continue from `state`."""


def make_rule(options: RuleOptions, size: int) -> Rule:
    """The rule that `[rule]` names, for a vector of `size` values, with the correction for staleness it names."""
    rule = _plain_rule(options, size)
    match options.staleness:
        case "none":
            return rule
        case "inverse":
            return InverseRate(rule)
        case "delay-compensated":
            return DelayCompensated(rule, options.compensation)
        case "gap-aware":
            return GapAware(rule, size, options.gap_decay, options.epsilon)


def _plain_rule(options: RuleOptions, size: int) -> Rule:
    match options.name:
        case "momentum_sgd":
            return MomentumSGD()
        case "nesterov":
            return Nesterov(size)
        case "rmsprop":
            return RMSProp(size, options)
        case "adagrad":
            return Adagrad(size, options)
        case "adam":
            return Adam(size, options)
        case "adamw":
            return AdamW(size, options)


def state_vectors(options: RuleOptions) -> int:
    """How many vectors of N float32 values the rule adds to a checkpoint, with its correction for staleness."""
    gap = int(options.staleness == "gap-aware")
    match options.name:
        case "momentum_sgd":
            return gap
        case "nesterov" | "rmsprop" | "adagrad":
            return gap + 1
        case "adam" | "adamw":
            return gap + 2
