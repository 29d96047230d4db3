"""Rules that divide by the root of a second moment: RMSProp, Adagrad, Adam and AdamW."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from psserver.options import RuleOptions
from psserver.rule_state import Layered, State, restore


@dataclass(frozen=True)
class ScaledStep:
    """The scalars of one RMSProp or Adagrad update: α, μ, ε, and v ← keep · v + take · g²."""

    learning_rate: float
    momentum: float
    epsilon: float
    keep: float
    take: float


def scaled_momentum(
    new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, second: Tensor, step: ScaledStep, scratch: Tensor
) -> None:
    """Momentum along the scaled gradient: x_{t+1} = x_t + (μ (x_t − x_{t−1}) − α g / (√v + ε)), written into `new`.

    With v ← ρ v + (1 − ρ) g² RMSProp, with v ← v + g² Adagrad. Momentum is in displacement form; torch's RMSprop has it
    in a buffer of g / (√v + ε), which makes the same versions while α and μ stay. μ = 0 is the method as published.
    Source: Tieleman and Hinton (2012), lecture 6.5; Duchi, Hazan and Singer (2011).
    """
    second.mul_(step.keep).addcmul_(gradient, gradient, value=step.take)
    torch.sqrt(second, out=scratch)
    scratch.add_(step.epsilon)
    torch.div(gradient, scratch, out=scratch)
    torch.sub(x, previous, out=new)
    new.mul_(step.momentum).sub_(scratch, alpha=step.learning_rate).add_(x)


def adam(
    new: Tensor,
    x: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    step: AdamStep,
    scratch: Tensor,
    strides: Sequence[tuple[slice, float]] = (),
) -> None:
    """Adam: m ← β1 m + (1 − β1) g, v ← β2 v + (1 − β2) g², x_{t+1} = x_t − α m̂ / (√v̂ + ε), written into `new`.

    m̂ = m / (1 − Π β1) over the β1 really used, which is the usual correction when β1 is constant, and exact when
    it is not. α is multiplied by the factor of each of the `strides`. Source: Kingma and Ba (2015), algorithm 1.
    """
    adam_direction(gradient, first, second, step, scratch)
    move(new, x, scratch, step, strides)


def adam_direction(gradient: Tensor, first: Tensor, second: Tensor, step: AdamStep, out: Tensor) -> None:
    """Advance m and v of `adam`, and write m / (√v̂ + ε) into `out`."""
    first.mul_(step.beta1).add_(gradient, alpha=1.0 - step.beta1)
    second.mul_(step.beta2).addcmul_(gradient, gradient, value=1.0 - step.beta2)
    divided(first, second, step, out)


def divided(numerator: Tensor, second: Tensor, step: AdamStep, out: Tensor) -> None:
    """Write numerator / (√v̂ + ε) into `out`."""
    torch.sqrt(second, out=out)
    out.mul_(step.second_correction).add_(step.epsilon)
    torch.div(numerator, out, out=out)


def move(new: Tensor, x: Tensor, scratch: Tensor, step: AdamStep, strides: Sequence[tuple[slice, float]]) -> None:
    """Write x less the direction in `scratch`, times α, its correction and each stride's factor, into `new`."""
    for part, factor in strides:
        scratch[part].mul_(factor)
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


class Scaled:
    """`scaled_momentum` over the whole vector: one more vector of N float32 values, v."""

    def __init__(self, size: int, keep: float, take: float, epsilon: float) -> None:
        self._second = torch.zeros(size)
        self._keep, self._take, self._epsilon = keep, take, epsilon
        self._step = ScaledStep(0.0, 0.0, epsilon, keep, take)

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set α and μ."""
        self._step = ScaledStep(learning_rate, momentum, self._epsilon, self._keep, self._take)

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Advance v and write one block of x_{t+1}."""
        scaled_momentum(new, x, previous, gradient, self._second[block], self._step, scratch)

    def around(self, sampled: Tensor) -> Tensor:
        """The sampled ones themselves."""
        return sampled

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """The scaled gradient g / (√v + ε)."""
        return gradient / sample(self._second).sqrt().add_(self._epsilon)

    def state_dict(self) -> State:
        """The second moment."""
        return {"second": self._second}

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit."""
        restore(self._second, state, "second")


class RMSProp(Scaled):
    """`scaled_momentum` by a running mean of squares, which forgets at rate ρ."""

    def __init__(self, size: int, options: RuleOptions) -> None:
        super().__init__(size, options.rho, 1.0 - options.rho, options.epsilon)


class Adagrad(Scaled):
    """`scaled_momentum` by the sum of all squares so far."""

    def __init__(self, size: int, options: RuleOptions) -> None:
        super().__init__(size, 1.0, 1.0, options.epsilon)


class Adam(Layered):
    """`adam` over the whole vector: two more vectors of N float32 values. The momentum is β1.

    In displacement form, with s = α / ((1 − Π β1)(√v̂ + ε)) of each coordinate,

        x_{t+1} = x_t + β1 (s_t / s_{t−1}) (x_t − x_{t−1}) − s_t (1 − β1) g_t,

    so its total momentum is β1 only as far as s keeps still: nearly, once the averages are as long as 1/(1 − β2).
    """

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
        strides = self.strides.pieces(block) if self.strides is not None else ()
        adam(new, x, gradient, self._first[block], self._second[block], self._step, scratch, strides)

    def around(self, sampled: Tensor) -> Tensor:
        """The sampled ones themselves."""
        return sampled

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
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
        restore(self._first, state, "first")
        restore(self._second, state, "second")
        self._beta1_product = float(state["beta1_product"])
        self._count = int(state["count"])


class AdamW(Adam):
    """`Adam` with decoupled weight decay: x_{t+1} is less by αλ x_t, and the gradient knows nothing of λ.

    Source: Loshchilov and Hutter (2019), algorithm 2, with α in place of their schedule's η α.
    """

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """As Adam, and decay."""
        super().apply(block, new, x, previous, gradient, scratch)
        decay = self._step.learning_rate * self._options.weight_decay
        if self.strides is None:
            new.sub_(x, alpha=decay)
            return
        for layer, part in self.strides.layers.pieces(block):
            new[part].sub_(x[part], alpha=decay * self.strides.factors[layer])

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """As Adam's, and (1 − β1) λ x.

        The decay of the version before rings on with β1, so λ (x_t − β1 x_{t−1}) is what α multiplies: this, but for
        αλβ1 that goes to the total momentum.
        """
        decay = (1.0 - self._step.beta1) * self._options.weight_decay
        return super().applied(gradient, x, sample).add_(x, alpha=decay)
