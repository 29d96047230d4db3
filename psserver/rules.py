"""Update rules: what one is, and the one that `[rule]` names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from psserver.adaptive import Adagrad, Adam, AdamW, RMSProp
from psserver.dana import DanaSlim
from psserver.eigenbasis import Placed
from psserver.gap import GapAware
from psserver.momentum import MomentumSGD, Nesterov
from psserver.options import RuleOptions
from psserver.ormo import OrMo
from psserver.prodigy import Prodigy
from psserver.rule_state import State
from psserver.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from psserver.soap import Soap
from psserver.staleness import DelayCompensated, InverseRate


class Rule(Protocol):
    """An update rule with its state: `begin` an update, `apply` it block by block.

    One that is `rule_state.Attributed` is told before whose gradient it is.
    """

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set the scalars of the update whose blocks follow."""

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Write one block of the new version into `new`; all tensors are that block's."""

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """What α multiplied in x_{t+1} = x_t + μ (x_t − x_{t−1}) − α a_t, for the total-momentum estimator.

        gradient, x: float32 [R], the gradient and the version it was applied to at the coordinates that `sample` takes
        of a vector [N]: the K that total momentum is measured at, or what a `rule_state.Preconditioned` rule wants
        around them, of any gradient. The answer is of the K. Asked after the blocks of an update, about that update.
        """

    def state_dict(self) -> State:
        """Everything the next update depends on."""

    def load_state_dict(self, state: State) -> None:
        """Continue from `state`."""


def make_rule(options: RuleOptions, size: int, workers: int = 1, tensors: Sequence[Placed] = ()) -> Rule:
    """The rule that `[rule]` names, for a vector of `size` values, with the correction for staleness it names.

    workers: of how many it sees gradients; a synchronous round is one's. "threshold" is for `Intake` to keep.
    tensors: where those of two dimensions or more lie, for a rule that knows of them; all is one vector without.
    """
    rule = _plain_rule(options, size, workers, tensors)
    match options.staleness:
        case "none" | "threshold":
            return rule
        case "inverse":
            return InverseRate(rule)
        case "delay-compensated":
            return DelayCompensated(rule, options.compensation)
        case "gap-aware":
            return GapAware(rule, size, options.gap_decay, options.epsilon)


def _plain_rule(options: RuleOptions, size: int, workers: int, tensors: Sequence[Placed]) -> Rule:
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
        case "soap":
            return Soap(size, options, tensors)
        case "dana_slim":
            return DanaSlim(size)
        case "ormo":
            return OrMo(size, workers)
        case "schedule_free_sgd":
            return ScheduleFreeSGD(size)
        case "schedule_free_adamw":
            return ScheduleFreeAdamW(size, options)
        case "prodigy":
            return Prodigy(size, options)


def state_vectors(options: RuleOptions, workers: int = 1) -> int:
    """How many vectors of N float32 values the rule adds to a checkpoint, with its correction for staleness.

    workers: as in `make_rule`. SOAP's matrices come on top (`soap.matrix_values`). DANA-Slim adds two for each, of
    which the second is as long as the tuner's sample.
    """
    gap = int(options.staleness == "gap-aware")
    match options.name:
        case "momentum_sgd":
            return gap
        case "nesterov" | "rmsprop" | "adagrad" | "ormo" | "schedule_free_sgd":
            return gap + 1
        case "adam" | "adamw" | "soap" | "schedule_free_adamw":
            return gap + 2
        case "prodigy":
            return gap + 4
        case "dana_slim":
            return gap + 2 * workers
