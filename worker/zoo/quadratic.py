"""A noisy quadratic, ½ Σ hᵢ xᵢ², whose curvatures, noise and optimum are known: what theory speaks about."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from psserver.errors import ConfigurationError
from worker.task import Shard, Task
from worker.zoo.stream import generator


class Quadratic(nn.Module):
    """½ Σ hᵢ xᵢ² with parameter x [size], at first `start` everywhere; the optimum is 0, its loss 0."""

    h: Tensor

    def __init__(self, h: Tensor, start: float) -> None:
        super().__init__()
        self.register_buffer("h", h, persistent=False)  # known to all, so never sent
        self.x = nn.Parameter(torch.full_like(h, start))

    def forward(self) -> Tensor:
        """Return the loss without noise, a scalar."""
        return 0.5 * (self.h * self.x.square()).sum()


def quadratic(
    size: int = 1000, h_min: float = 0.01, h_max: float = 1.0, noise: float = 0.1, start: float = 1.0
) -> Task:
    """Return the task of minimising ½ Σ hᵢ xᵢ² from gradients h x + ξ.

    size:         number of parameters.
    h_min, h_max: curvatures, spaced evenly in their logarithm; h_max / h_min is the condition number.
    noise:        standard deviation of each element of ξ, gaussian and drawn for (seed, rank, position);
                  YellowFin's gradient variance C is size · noise².
    start:        first value of every parameter.

    Evaluates to the exact loss and to the distance ‖x‖ from the optimum.
    """
    if size < 1:
        raise ConfigurationError(f"size: expected 1 or more parameters, got {size}")
    if not 0 < h_min <= h_max:
        raise ConfigurationError(f"h_min, h_max: expected 0 < h_min ≤ h_max, got {h_min} and {h_max}")
    if noise < 0:
        raise ConfigurationError(f"noise: expected a standard deviation of at least 0, got {noise}")
    h = torch.logspace(0, 1, size, base=h_max / h_min, dtype=torch.float64).mul_(h_min).float()

    def batches(shard: Shard) -> Iterator[Tensor]:
        position = shard.start
        while True:
            draw = generator("quadratic", shard.seed, shard.rank, position)
            yield torch.randn(1, size, generator=draw).mul_(noise)
            position += 1

    def loss(module: nn.Module, xi: Tensor) -> Tensor:
        exact: Tensor = module()
        return exact + (xi[0] * module.get_parameter("x")).sum()  # the gradient of ξᵀx is ξ

    def evaluate(module: nn.Module) -> dict[str, float]:
        return {"loss": module().item(), "distance": module.get_parameter("x").norm().item()}

    return Task(model=lambda: Quadratic(h.clone(), start), loss=loss, batches=batches, evaluate=evaluate)
