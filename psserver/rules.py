"""Update rules as pure functions on blocks of the flat vector, and the thin classes that hold their state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from psserver.options import RuleOptions

State = dict[str, "Tensor | float | int"]


def momentum_sgd(
    new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, learning_rate: float, momentum: float, scratch: Tensor
) -> None:
    """Momentum in displacement (Polyak) form: x_{t+1} = x_t + (μ (x_t − x_{t−1}) − α g_t), written into `new`.

    Every operation rounds once to float32, in the order the formula is read, so that it can be checked bit for
    bit. Not torch's buffer form, which differs whenever α changes. Source: Polyak (1964); YellowFin, section 2.
    """
    torch.sub(x, previous, out=new)
    new.mul_(momentum)
    torch.mul(gradient, learning_rate, out=scratch)
    new.sub_(scratch)
    new.add_(x)


def adam(
    new: Tensor, x: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: AdamStep, scratch: Tensor
) -> None:
    """Adam: m ← β1 m + (1 − β1) g, v ← β2 v + (1 − β2) g², x_{t+1} = x_t − α m̂ / (√v̂ + ε), written into `new`.

    m̂ = m / (1 − Π β1) over the β1 really used, which is the usual correction when β1 is constant, and exact when
    it is not. Source: Kingma and Ba (2015), algorithm 1.
    """
    first.mul_(step.beta1).add_(gradient, alpha=1.0 - step.beta1)
    second.mul_(step.beta2).addcmul_(gradient, gradient, value=1.0 - step.beta2)
    torch.sqrt(second, out=scratch)
    scratch.mul_(step.second_correction).add_(step.epsilon)
    torch.div(first, scratch, out=scratch)
    torch.add(x, scratch, alpha=-step.learning_rate * step.first_correction, out=new)


class AdamStep:
    """The scalars of one Adam update; corrections are 1/(1 − Π β1) and 1/√(1 − β2^t)."""

    def __init__(self, learning_rate: float, beta1: float, beta1_product: float, count: int, rule: RuleOptions) -> None:
        self.learning_rate = learning_rate
        self.beta1 = beta1
        self.beta2 = rule.beta2
        self.epsilon = rule.epsilon
        self.first_correction = 1.0 / (1.0 - beta1_product)
        self.second_correction = (1.0 - rule.beta2**count) ** -0.5


class Rule(Protocol):
    """An update rule with its state: `begin` an update, `apply` it block by block."""

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set the scalars of the update whose blocks follow."""

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Write one block of the new version into `new`; all tensors are that block's."""

    def applied(self, gradient: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient as it moved the parameters at the sampled coordinates, for the total-momentum estimator."""

    def state_dict(self) -> State:
        """Everything the next update depends on."""

    def load_state_dict(self, state: State) -> None:
        """Continue from `state`."""


class MomentumSGD:
    """`momentum_sgd`; the trajectory is its only state."""

    def __init__(self) -> None:
        self._learning_rate = self._momentum = 0.0

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set α and μ."""
        self._learning_rate, self._momentum = learning_rate, momentum

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Write one block of x_{t+1}."""
        momentum_sgd(new, x, previous, gradient, self._learning_rate, self._momentum, scratch)

    def applied(self, gradient: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient itself."""
        return gradient

    def state_dict(self) -> State:
        """Nothing beside the trajectory."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to restore."""


class Adam:
    """`adam` over the whole vector: two more vectors of N float32 values."""

    def __init__(self, size: int, options: RuleOptions) -> None:
        self._options = options
        self._first = torch.zeros(size)
        self._second = torch.zeros(size)
        self._beta1_product = 1.0
        self._count = 0
        self._step = AdamStep(0.0, 0.0, 0.0, 1, options)

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set α and β1 of the next update."""
        self._count += 1
        self._beta1_product *= momentum
        self._step = AdamStep(learning_rate, momentum, self._beta1_product, self._count, self._options)

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Advance both moments and write one block of x_{t+1}."""
        adam(new, x, gradient, self._first[block], self._second[block], self._step, scratch)

    def applied(self, gradient: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """The preconditioned gradient (1 − β1) g / ((1 − Π β1)(√v̂ + ε)): what α multiplies in displacement form."""
        root = sample(self._second).sqrt().mul_(self._step.second_correction).add_(self._step.epsilon)
        return gradient * ((1.0 - self._step.beta1) * self._step.first_correction) / root

    def state_dict(self) -> State:
        """Both moments, Π β1 and the number of updates."""
        return {
            "first": self._first,
            "second": self._second,
            "beta1_product": self._beta1_product,
            "count": self._count,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit."""
        for name, mine in (("first", self._first), ("second", self._second)):
            value = state[name]
            if not isinstance(value, Tensor) or value.shape != mine.shape:
                raise ValueError(f"rule.{name}: expected {mine.numel()} values, got {value!r:.60}")
            mine.copy_(value)
        self._beta1_product = float(state["beta1_product"])
        self._count = int(state["count"])


def make_rule(options: RuleOptions, size: int) -> Rule:
    """The rule that `[rule]` names, for a vector of `size` values."""
    return Adam(size, options) if options.name == "adam" else MomentumSGD()
