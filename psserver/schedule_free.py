"""Schedule-free SGD and AdamW: the average that a schedule would end in, taken from the first update on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from psserver.options import RuleOptions
from psserver.rule_state import State, restore


@dataclass(frozen=True)
class FreeStep:
    """The scalars of one update.

    share: c = α_t² / Σ α², the weight of z_{t+1} in the average x_{t+1}.   taken: 1 − β (1 − c).
    """

    learning_rate: float
    momentum: float
    share: float

    @property
    def taken(self) -> float:
        """What of a step shows in y at once; the rest follows as y is drawn towards z."""
        return 1.0 - self.momentum * (1.0 - self.share)


def schedule_free(new: Tensor, y: Tensor, z: Tensor, direction: Tensor, step: FreeStep) -> None:
    """z ← z − α d, x ← (1 − c) x + c z, y_{t+1} = (1 − β) z + β x, written into `z` and `new`; d is `direction`.

    Without its x, which y_t = (1 − β) z + β x contains: y_{t+1} = y_t + c (z_t − y_t) − α (1 − β (1 − c)) d.
    Source: Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky (2024), The road less scheduled.
    """
    torch.sub(z, y, out=new)
    new.mul_(step.share).add_(y).sub_(direction, alpha=step.learning_rate * step.taken)
    z.sub_(direction, alpha=step.learning_rate)


class ScheduleFreeSGD:
    """`schedule_free` along the gradient. The versions are y, where gradients are taken; the momentum is β.

    One more vector of N float32 values, z. x is in none: it is (y − (1 − β) z) / β. What is evaluated, and what a run
    hands back, are its versions, so y and not the average x, to which y comes close as x and z do. Weight decay, in the
    gradient, is that of y. Exact while β stays; when it changes, z − y is kept, as if x had moved. Leave the loop open.
    """

    def __init__(self, size: int) -> None:
        self._z = torch.zeros(size)
        self._count = 0
        self._squares = 0.0
        self._step = FreeStep(0.0, 0.0, 0.0)

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set α and β, and from them c; 0 as long as every α was 0."""
        self._count += 1
        self._squares += learning_rate**2
        share = learning_rate**2 / self._squares if self._squares else 0.0
        self._step = FreeStep(learning_rate, momentum, share)

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Advance z and write one block of y_{t+1}; `x` is y_t."""
        schedule_free(new, x, self._z_at(block, x), gradient, self._step)

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """(1 − β (1 − c)) g: what α multiplies at once.

        The rest of a step is c (z − y), a memory that fades with 1 − c and not with β. So the measured total momentum
        is that of the trajectory of y; it is not β without staleness either, and no measure of what β does.
        """
        return gradient * self._step.taken

    def state_dict(self) -> State:
        """z, the number of updates and Σ α²."""
        return {"z": self._z, "count": self._count, "squares": self._squares}

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit."""
        restore(self._z, state, "z")
        self._count = int(state["count"])
        self._squares = float(state["squares"])

    def _z_at(self, block: slice, y: Tensor) -> Tensor:
        """A block of z, which starts where y does."""
        z = self._z[block]
        return z.copy_(y) if self._count == 1 else z


class ScheduleFreeAdamW(ScheduleFreeSGD):
    """`schedule_free` along g / (√v̂ + ε) + λ y, with v ← β2 v + (1 − β2) g² and v̂ = v / (1 − β2^t).

    β is in the place of Adam's β1, so there is no first moment: two more vectors of N float32 values, z and v.
    """

    def __init__(self, size: int, options: RuleOptions) -> None:
        super().__init__(size)
        self._options = options
        self._second = torch.zeros(size)

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Advance v and z and write one block of y_{t+1}; `x` is y_t."""
        beta2, second = self._options.beta2, self._second[block]
        second.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        self._root(second, scratch)
        torch.div(gradient, scratch, out=scratch)
        if self._options.weight_decay:
            scratch.add_(x, alpha=self._options.weight_decay)
        schedule_free(new, x, self._z_at(block, x), scratch, self._step)

    def around(self, sampled: Tensor) -> Tensor:
        """The sampled ones themselves."""
        return sampled

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """As schedule-free SGD's, of the direction in place of the gradient."""
        direction = gradient / self._root(sample(self._second), torch.empty_like(gradient))
        return super().applied(direction.add_(x, alpha=self._options.weight_decay), x, sample)

    def state_dict(self) -> State:
        """As schedule-free SGD's, and the second moment."""
        return {**super().state_dict(), "second": self._second}

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit."""
        super().load_state_dict(state)
        restore(self._second, state, "second")

    def _root(self, second: Tensor, out: Tensor) -> Tensor:
        """√v̂ + ε."""
        torch.sqrt(second, out=out)
        return out.mul_((1.0 - self._options.beta2**self._count) ** -0.5).add_(self._options.epsilon)
