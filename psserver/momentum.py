"""Momentum SGD and Nesterov's method in displacement form: as pure functions, and as rules that hold their state."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from psserver.rule_state import State, restore


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

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient itself."""
        return gradient

    def state_dict(self) -> State:
        """Nothing beside the trajectory."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to restore."""


class Nesterov:
    """`momentum_sgd` along the gradient extrapolated by one step: g_t + μ (g_t − g_{t−1}), with g_{−1} = 0.

    Nesterov's y_{t+1} = x_t − α g(x_t), x_{t+1} = y_{t+1} + μ (y_{t+1} − y_t) without its y:

        x_{t+1} = x_t + μ (x_t − x_{t−1}) − α (g_t + μ (g_t − g_{t−1})).

    So the versions handed out are the look-ahead points x, as the parameters of torch's SGD(nesterov=True) are, and
    both make the same versions while α and μ stay. g_{t−1} is the gradient applied before, by whichever worker.
    Keeps the last two gradients, 2 N values, of which one is saved. Source: Nesterov (1983); Bengio,
    Boulanger-Lewandowski and Pascanu (2013), section 3.5.
    """

    def __init__(self, size: int) -> None:
        self._learning_rate = self._momentum = 0.0
        self._gradient, self._before = torch.zeros(size), torch.zeros(size)

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set α and μ."""
        self._learning_rate, self._momentum = learning_rate, momentum
        self._gradient, self._before = self._before, self._gradient

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Write one block of x_{t+1}, and keep that of the gradient."""
        mine = self._gradient[block]
        torch.sub(gradient, self._before[block], out=mine)
        mine.mul_(self._momentum).add_(gradient)
        momentum_sgd(new, x, previous, mine, self._learning_rate, self._momentum, scratch)
        mine.copy_(gradient)

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient, extrapolated from the one that was applied before it."""
        return gradient + self._momentum * (gradient - sample(self._before))

    def state_dict(self) -> State:
        """The last gradient."""
        return {"gradient": self._gradient}

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit."""
        restore(self._gradient, state, "gradient")
