"""OrMo: momentum in the order in which gradients were asked for, not in that in which they arrive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from psserver.rule_state import Attributed, State, restore


def bucket_of(version: int, size: int) -> int:
    """⌈v/K⌉: the bucket of a gradient computed at version v; bucket 0 holds the first K, all of version 0."""
    return -(-version // size)


@dataclass(frozen=True)
class OrderedStep:
    """The scalars of one update.

    begins: a new bucket begins with it.
    late:   buckets d that the gradient comes late.
    """

    learning_rate: float
    momentum: float
    begins: bool
    late: int

    @property
    def weight(self) -> float:
        """β^d: what is left of a gradient in a momentum that has since rung on d times."""
        return float(self.momentum**self.late)

    @property
    def catch_up(self) -> float:
        """1 + β + … + β^d = (1 − β^{d+1}) / (1 − β): how far it would have carried the parameters by now."""
        return float((1.0 - self.momentum ** (self.late + 1)) / (1.0 - self.momentum))


def ordered_momentum(new: Tensor, x: Tensor, momentum: Tensor, gradient: Tensor, step: OrderedStep) -> None:
    """u ← β u and x ← x − u where a bucket begins; then u ← u + β^d α g, x ← x − (1 + … + β^d) α g.

    Written into `momentum`, which is u, and `new`. At any time u and x are then what momentum SGD, one step a bucket
    with the sum of the bucket's gradients, would have made of the gradients that have arrived, each in its own bucket.
    """
    if step.begins:
        momentum.mul_(step.momentum)
        torch.sub(x, momentum, out=new)
    else:
        new.copy_(x)
    momentum.add_(gradient, alpha=step.weight * step.learning_rate)
    new.sub_(gradient, alpha=step.catch_up * step.learning_rate)


class OrMo(Attributed):
    """`ordered_momentum`, with buckets of K = `workers`: as many gradients as a synchronous round would have.

    Momentum acts once in K updates, so β means what it means to synchronous training with the sum of K gradients.
    One vector of N float32 values, u, in which α is contained. With one worker that is not stale it is momentum SGD.
    Exact while β stays. Source: Shi, Yang and Li (2024), Ordered momentum for asynchronous SGD.
    """

    def __init__(self, size: int, workers: int) -> None:
        self._workers = workers
        self._momentum = torch.zeros(size)
        self._step = OrderedStep(0.0, 0.0, False, 0)

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set α and β; find the bucket that is being filled, and the gradient's own."""
        now = bucket_of(self.version, self._workers)
        begins = self.version > 0 and now > bucket_of(self.version - 1, self._workers)
        self._step = OrderedStep(learning_rate, momentum, begins, now - bucket_of(self.computed_at, self._workers))

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Advance u and write one block of x_{t+1}."""
        ordered_momentum(new, x, self._momentum[block], gradient, self._step)

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """(1 + … + β^d) g: what α multiplies at once.

        The rest of a step is u. With one worker that is −β (x_t − x_{t−1}), and the total momentum is β; with K it is
        no such thing but once in K updates, so that the measured momentum is not β, and a closed loop is not at home.
        """
        return gradient * self._step.catch_up

    def state_dict(self) -> State:
        """The momentum u."""
        return {"momentum": self._momentum}

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit."""
        restore(self._momentum, state, "momentum")
