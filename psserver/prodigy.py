"""Prodigy: Adam whose learning rate is an estimate of the distance to the solution, learnt on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from psserver.options import RuleOptions
from psserver.rule_state import State, restore


@dataclass(frozen=True)
class ProdigyStep:
    """The scalars of one update: γ, β1, β2, ε, λ, the estimate d and the d_0 it began with; β3 = √β2."""

    factor: float
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    distance: float
    initial: float

    @property
    def beta3(self) -> float:
        """√β2, the decay of the two sums that the estimate is made of."""
        return math.sqrt(self.beta2)

    @property
    def weight(self) -> float:
        """(1 − β3) γ d² / d_0: of a gradient in those sums; d_0 only keeps their float32 values away from 0."""
        return (1.0 - self.beta3) * self.factor * self.distance * (self.distance / self.initial)


@dataclass(frozen=True)
class Moments:
    """One block of the vectors that Prodigy keeps: m, v, s and x_0."""

    first: Tensor
    second: Tensor
    sum: Tensor
    start: Tensor


def prodigy(
    new: Tensor, x: Tensor, gradient: Tensor, kept: Moments, step: ProdigyStep, scratch: Tensor
) -> tuple[float, float]:
    """One block of x_{t+1} = x_t − γ d (m / (√v + d ε) + λ x_t), written into `new`; returns ⟨g, x_0 − x_t⟩ and ‖s‖_1.

    m ← β1 m + (1 − β1) d g, v ← β2 v + (1 − β2) d² g², s ← β3 s + (1 − β3) γ d² g, without debiasing. Source:
    Mishchenko and Defazio (2023), Prodigy, the form of Adam; weight decay as AdamW's.
    """
    d = step.distance
    kept.first.mul_(step.beta1).add_(gradient, alpha=(1.0 - step.beta1) * d)
    kept.second.mul_(step.beta2).addcmul_(gradient, gradient, value=(1.0 - step.beta2) * d * d)
    kept.sum.mul_(step.beta3).add_(gradient, alpha=step.weight)
    torch.sub(kept.start, x, out=scratch)
    towards = float(torch.dot(gradient, scratch))
    torch.sqrt(kept.second, out=scratch)
    scratch.add_(d * step.epsilon)
    torch.div(kept.first, scratch, out=scratch)
    if step.weight_decay:
        scratch.add_(x, alpha=step.weight_decay)
    torch.add(x, scratch, alpha=-step.factor * d, out=new)
    return towards, float(torch.linalg.vector_norm(kept.sum, 1))


class Prodigy:
    """`prodigy`: the tuner's learning rate is γ, which multiplies the estimate (1 is the method); its momentum is β1.

    d_{t+1} = max(d_t, r / ‖s‖_1) with r ← β3 r + (1 − β3) γ d² ⟨g, x_0 − x_t⟩. x_t is the version that a gradient is
    applied to; with staleness the gradient is of another, and d, which never shrinks, comes out too large: a γ of some
    tenths, or "inverse", then makes up for it. Keeps m, v, s and x_0: four more vectors of N float32 values.
    """

    def __init__(self, size: int, options: RuleOptions) -> None:
        self._options = options
        self._kept = Moments(*(torch.zeros(size) for _ in range(4)))
        self._distance = options.initial_distance
        self._numerator = self._towards = self._norm = 0.0
        self._summed = False
        self._count = 0
        self._step = self._settings(0.0, 0.0)

    @property
    def distance(self) -> float:
        """The estimate d that the next update uses."""
        return self._learnt()[0]

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Take in what the last update summed; set γ and β1."""
        self._distance, self._numerator = self._learnt()
        self._towards = self._norm = 0.0
        self._summed = True
        self._count += 1
        self._step = self._settings(learning_rate, momentum)

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Advance every vector, take sums, and write one block of x_{t+1}."""
        all_ = self._kept
        kept = Moments(all_.first[block], all_.second[block], all_.sum[block], all_.start[block])
        if self._count == 1:
            kept.start.copy_(x)
        towards, norm = prodigy(new, x, gradient, kept, self._step, scratch)
        self._towards += towards
        self._norm += norm

    def around(self, sampled: Tensor) -> Tensor:
        """The sampled ones themselves."""
        return sampled

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """d ((1 − β1) (d g / (√v + d ε) + λ x)): as AdamW's, and its total momentum is β1 once d and v keep still."""
        step = self._step
        root = sample(self._kept.second).sqrt().add_(step.distance * step.epsilon)
        direction = (gradient * step.distance / root).add_(x, alpha=step.weight_decay)
        return direction.mul_((1.0 - step.beta1) * step.distance)

    def state_dict(self) -> State:
        """Every vector, d and r after the last update, and the number of updates."""
        distance, numerator = self._learnt()
        vectors = {name: getattr(self._kept, name) for name in ("first", "second", "sum", "start")}
        return {**vectors, "distance": distance, "numerator": numerator, "count": self._count}

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit."""
        for name in ("first", "second", "sum", "start"):
            restore(getattr(self._kept, name), state, name)
        self._distance, self._numerator = float(state["distance"]), float(state["numerator"])
        self._count = int(state["count"])
        self._summed = False

    def _learnt(self) -> tuple[float, float]:
        """d and r, with what the last update summed."""
        if not self._summed:
            return self._distance, self._numerator
        numerator = self._step.beta3 * self._numerator + self._step.weight * self._towards
        return max(self._distance, numerator / self._norm) if self._norm else self._distance, numerator

    def _settings(self, factor: float, beta1: float) -> ProdigyStep:
        options = self._options
        return ProdigyStep(
            factor,
            beta1,
            options.beta2,
            options.epsilon,
            options.weight_decay,
            self._distance,
            options.initial_distance,
        )
