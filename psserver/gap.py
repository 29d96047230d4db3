"""Gap-Aware: each coordinate of a stale gradient is divided by how many usual steps its parameter has moved since."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from psserver.rule_state import State, restore
from psserver.staleness import Corrected, Inner

_TINY = torch.finfo(torch.float32).tiny


def usual_step(second: Tensor, correction: float, largest_rate: float, epsilon: float, out: Tensor) -> Tensor:
    """C = α_max (√(v · correction) + ε), written into `out`: a usual step at the largest learning rate there was.

    v: running mean of the squares of steps, each divided by the α that made it; never 0, so that it can divide.
    """
    torch.mul(second, correction, out=out)
    return out.sqrt_().add_(epsilon).mul_(largest_rate).clamp_min_(_TINY)


def penalise(gradient: Tensor, x: Tensor, origin: Tensor, usual: Tensor, out: Tensor) -> Tensor:
    """g / (1 + |x_t − x_v| / C), coordinate by coordinate, written into `out`; `usual` is C.

    All tensors are of one shape; `out` must not overlap the others. Source: Barkai, Hakimi and Schuster (2020).
    """
    torch.sub(x, origin, out=out)
    out.abs_().div_(usual).add_(1.0)
    return torch.div(gradient, out, out=out)


class GapAware(Corrected):
    """`penalise`, after the tuner has looked at the gradient, weight decay included: a learning rate by coordinate.

    C is `usual_step` with v ← ρ v + (1 − ρ) ((x_t − x_{t−1}) / α)², debiased; v is one more vector of N values. It is
    taken at the largest α so far, so that the penalty fades as a schedule lowers α. By coordinate and at the largest α
    as in the implementation of FTPipe (Eliad et al., 2021), where a step divided by α is the momentum buffer.
    """

    needs_origin = True

    def __init__(self, rule: Inner, size: int, decay: float, epsilon: float) -> None:
        super().__init__(rule)
        self._decay, self._epsilon = decay, epsilon
        self._second = torch.zeros(size)
        self._count = 0
        self._rate = self._largest = 0.0
        self._made_by = 0.0  # α of the step from x_{t−1} to x_t; 0 where there was none
        self._usual, self._penalised = torch.empty(0), torch.empty(0)

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set α and μ."""
        self._made_by, self._rate = self._rate, learning_rate
        self._count += self._made_by > 0.0
        self._largest = max(self._largest, learning_rate)
        self.rule.begin(learning_rate, momentum)

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Take the last step into v; write one block of x_{t+1} by the penalised gradient."""
        second = self._second[block]
        if self._made_by > 0.0:
            torch.sub(x, previous, out=scratch)
            scratch.div_(self._made_by)
            second.mul_(self._decay).addcmul_(scratch, scratch, value=1.0 - self._decay)
        if self._origin is not None:
            if self._usual.numel() < x.numel():
                self._usual, self._penalised = torch.empty(x.numel()), torch.empty(x.numel())
            room, out = self._usual[: x.numel()], self._penalised[: x.numel()]
            gradient = penalise(gradient, x, self._origin[block], self._usual_step(second, room), out)
        self.rule.apply(block, new, x, previous, gradient, scratch)

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """The rule's, of the penalised gradient."""
        if self._origin is not None:
            usual = self._usual_step(sample(self._second), torch.empty_like(x))
            gradient = penalise(gradient, x, sample(self._origin), usual, torch.empty_like(x))
        return self.rule.applied(gradient, x, sample)

    def state_dict(self) -> State:
        """The rule's, v, how many steps it holds, the last α and the largest."""
        mine: State = {
            "gap_second": self._second,
            "gap_count": self._count,
            "gap_rate": self._rate,
            "gap_largest_rate": self._largest,
        }
        return {**self.rule.state_dict(), **mine}

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit."""
        self.rule.load_state_dict(state)
        restore(self._second, state, "gap_second")
        self._count = int(state["gap_count"])
        self._rate, self._largest = float(state["gap_rate"]), float(state["gap_largest_rate"])

    def _usual_step(self, second: Tensor, out: Tensor) -> Tensor:
        correction = 1.0 / (1.0 - self._decay**self._count) if self._count else 1.0
        return usual_step(second, correction, self._largest, self._epsilon, out)
