"""Curvature by back-propagation: products with a loss's Hessian, its largest eigenvalue and its mean diagonal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Product = Callable[[Tensor], Tensor]
"""v -> H v, float32 [N] each."""

FIRST = 10
"""Steps of power iteration from a random vector; from the one kept since the last measurement, one is enough."""


def due(step: int, worker: int, every: int) -> bool:
    """Whether a worker measures with this step: with every `every`-th, the workers in turn; never for 0."""
    return every > 0 and (step - 1 + worker) % every == 0


def hessian_product(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Product:
    """Return v -> H v for the Hessian of `loss` (a scalar) in `parameters`, laid end to end.

    The product is the gradient of ⟨∇loss, v⟩, which costs about two gradients and never forms H (Pearlmutter 1994).
    Raises RuntimeError, there or in a product, where torch cannot differentiate twice. Leaves `.grad` alone.
    """
    sizes = [parameter.numel() for parameter in parameters]
    slopes = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    _need_whole_graph(slopes)
    curved = [slope.requires_grad for slope in slopes]  # a slope that is constant has no second derivative to ask for

    def product(vector: Tensor) -> Tensor:
        if not any(curved):
            return torch.zeros_like(vector)
        parts = [part.view_as(slope) for part, slope in zip(torch.split(vector, sizes), slopes, strict=True)]
        asked = [(slope, part) for slope, part, bent in zip(slopes, parts, curved, strict=True) if bent]
        found = torch.autograd.grad(
            [slope for slope, _ in asked],
            parameters,
            [part for _, part in asked],
            retain_graph=True,
            materialize_grads=True,
        )
        return torch.cat([part.reshape(-1) for part in found])

    return product


def _need_whole_graph(slopes: Sequence[Tensor]) -> None:
    """Raise RuntimeError where a function is marked `once_differentiable`: torch would take its part of H for 0."""
    waiting = [slope.grad_fn for slope in slopes]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if node.name().endswith("Error"):
            raise RuntimeError("a function in it is marked once_differentiable")
        following = {after for after, _ in node.next_functions} - seen
        seen |= following
        waiting.extend(following)


def largest(product: Product, vector: Tensor, steps: int) -> tuple[float, Tensor]:
    """Return the largest magnitude of an eigenvalue, and its direction, by `steps` of power iteration from `vector`.

    ‖H v‖ of a unit vector v: at most the true value, and exact for an eigenvector. A vector that H takes to 0, or to
    what is not finite, ends it with that.
    """
    direction, size = vector / vector.norm(), 0.0
    for _ in range(steps):
        turned = product(direction)
        size = float(turned.norm())
        if size == 0.0 or not math.isfinite(size):
            break
        direction = turned / size
    return size, direction


def mean_diagonal(product: Product, signs: Tensor) -> float:
    """Return zᵀ H z / N for z of random signs: its expectation is the mean of H's diagonal (Hutchinson 1990)."""
    return float(torch.dot(signs, product(signs))) / signs.numel()


def measure(
    product: Product, kept: Tensor | None, like: Tensor, seed: int
) -> tuple[tuple[float, float] | None, Tensor]:
    """Return (largest magnitude of an eigenvalue, mean of the diagonal), and the direction to keep for the next time.

    kept: what an earlier measurement returned; None begins from a random vector.
    like: a vector [N] of the type and on the device to compute with.
    seed: of the random vectors.

    None for the numbers where they are not finite. Costs two products; `FIRST` + 1 without `kept`.
    """
    draw = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (like.numel(),), generator=draw).mul_(2).sub_(1).to(like)
    start = torch.randn(like.numel(), generator=draw).to(like) if kept is None else kept
    h_max, direction = largest(product, start, FIRST if kept is None else 1)
    h_mean = mean_diagonal(product, signs)
    return ((h_max, h_mean) if math.isfinite(h_max) and math.isfinite(h_mean) else None), direction


@contextmanager
def twice_differentiable(module: nn.Module, compiled: bool) -> Iterator[None]:
    """Context in which forward passes use what torch can differentiate twice, where it has a choice.

    Fused attention, cuDNN's recurrent layers and compiled graphs can be differentiated only once.
    """
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(part, nn.RNNBase) for part in module.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if compiled:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
