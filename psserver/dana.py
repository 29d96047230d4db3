"""DANA-Slim: the momentum of each worker apart, kept by the server, and the versions are points that look ahead."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from psserver.rule_state import Attributed, State, restore

_VELOCITY, _GRADIENT = "velocity_", "gradient_"  # and the worker's number


def dana_slim(
    new: Tensor, x: Tensor, velocity: Tensor, gradient: Tensor, learning_rate: float, momentum: float, scratch: Tensor
) -> None:
    """v_i ← μ v_i + g, x_{t+1} = x_t − α (μ v_i + g), written into `velocity` and `new`; g is by worker i.

    With M workers whose steps are about equal, x_{t+1} lies where all velocities are expected to have carried the
    parameters by the time the next gradient at it arrives, which is why the momentum need not be lowered. Source:
    Hakimi, Barkai, Gabel and Schuster (2019), DANA-Slim; with one worker Bengio's form of Nesterov's method.
    """
    velocity.mul_(momentum).add_(gradient)
    torch.add(gradient, velocity, alpha=momentum, out=scratch)
    torch.add(x, scratch, alpha=-learning_rate, out=new)


class DanaSlim(Attributed):
    """`dana_slim`. The paper has a worker keep its v and push μ v + g; here a worker pushes g and the server keeps v.

    Both make the same versions. Memory: a vector of N float32 values for each worker that ever pushed, M N in all, made
    at its first push and saved in checkpoints; a worker that takes a rank again goes on with that rank's vector. For
    `applied` K more values each, K being the coordinates that the estimator samples. A synchronous round is one
    worker's.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._learning_rate = self._momentum = 0.0
        self._velocities: dict[int, Tensor] = {}
        self._gradients: dict[int, Tensor] = {}
        self._before: Tensor | None = None
        self._velocity = torch.empty(0)

    def begin(self, learning_rate: float, momentum: float) -> None:
        """Set α and μ, and whose velocity is meant."""
        self._learning_rate, self._momentum = learning_rate, momentum
        if self.worker not in self._velocities:
            self._velocities[self.worker] = torch.zeros(self._size)
        self._velocity = self._velocities[self.worker]
        self._before = self._gradients.get(self.worker)

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Advance the worker's velocity and write one block of x_{t+1}."""
        dana_slim(new, x, self._velocity[block], gradient, self._learning_rate, self._momentum, scratch)

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """g + μ (g − g'), g' being the same worker's gradient before.

        With d = x_{t+1} − x_t and d' the step that the worker made before, d = μ d' − α (g + μ (g − g')) while α and μ
        stay. With one worker d' = x_t − x_{t−1}, so the total momentum is μ; with M it is the worker's own.
        """
        self._gradients[self.worker] = gradient
        before = gradient.new_zeros(gradient.shape) if self._before is None else self._before
        return gradient + self._momentum * (gradient - before)

    def state_dict(self) -> State:
        """Velocities, and last gradients at the sampled coordinates, by worker number."""
        return {
            **{f"{_VELOCITY}{worker}": velocity for worker, velocity in sorted(self._velocities.items())},
            **{f"{_GRADIENT}{worker}": gradient for worker, gradient in sorted(self._gradients.items())},
        }

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit."""
        self._velocities, self._gradients = {}, {}
        for name, value in state.items():
            if name.startswith(_VELOCITY):
                velocity = torch.zeros(self._size)
                restore(velocity, state, name)
                self._velocities[int(name.removeprefix(_VELOCITY))] = velocity
            elif name.startswith(_GRADIENT) and isinstance(value, Tensor):
                self._gradients[int(name.removeprefix(_GRADIENT))] = value.clone()
