"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for every tensor of two dimensions or more."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from psserver.adaptive import Adam, adam_direction, divided, move
from psserver.around import Around, Blocks, block_count
from psserver.eigenbasis import Eigenbasis, Placed, Side, sides
from psserver.options import RuleOptions
from psserver.rule_state import Pulled, State, restore
from tuner import Pull

LEAST = 1e-30  # mean square of gradients that tell what is curved; those below are far below `rule.epsilon`
REGION = 32_768  # float32 values about sampled coordinates: of many blocks of small tensors, of eight of large ones
_TURNED = {"first": "turned_first", "second": "turned_second"}


class Soap(Adam, Pulled):
    """`Adam` on gradients turned into the eigenbasis Q of their own second moments, and its step turned back.

    Of each tensor G, with G' = Q_1ᵀ G Q_2 and so on for more dimensions,

        m ← β1 m + (1 − β1) G',   v ← β2 v + (1 − β2) G'²,   X ← X − α Q_1 (m̂ / (√v̂ + ε)) Q_2ᵀ,

    m and v in that basis. Q_k has the eigenvectors of a running mean of G_(k) G_(k)ᵀ, anew every `precondition_every`
    updates, a tensor later than another; m is then turned with it, v as if its coordinates were independent (see
    `Eigenbasis`). As with Adam, a step is as long as α per coordinate in the mean, it is linear in the gradient, which
    the measurement of total momentum needs, and m and v come from gradients of any staleness. Vectors, and tensors
    that are not told of (embeddings), are Adam's.

    With `pull` each tensor whose scale matters is then drawn towards x_v, where the gradient was computed, the more the
    more curved its loss is along an eigenvector; v stands for the curvature, as a Fisher matrix has it:

        X ← X − Q_1 (min(c v/mean(v), most) ⊙ Q_1ᵀ (X_t − X_v) Q_2) Q_2ᵀ,   c the `part` of `Pull`,

    delay compensation (Zheng et al. 2017, with g² in coordinates for a Hessian) in the eigenbasis.

    tensors: where those to be turned lie. Keeps, besides m and v, G', and two matrices for every block
    of a dimension. Source: Vyas et al. (2024), SOAP, algorithm 3, after Gupta, Koren and Singer (2018), Shampoo; here
    for each dimension of a convolution, and with m in the basis.
    """

    def __init__(self, size: int, options: RuleOptions, tensors: Sequence[Placed] = ()) -> None:
        super().__init__(size, options)
        turned = _turned(options, tensors)
        room = sum(side.values for _, found in turned for side in found)
        self._products, self._bases = torch.zeros(room), torch.zeros(room)
        self._eigenbases, start = [], 0
        for part, found in turned:
            end = start + sum(side.values for side in found)
            self._eigenbases.append(Eigenbasis(part, found, self._products[start:end], self._bases[start:end]))
            start = end
        self._gradient = torch.zeros(size)
        self._within: dict[int, list[tuple[int, Eigenbasis]]] = {}
        self._around: Around | None = None

    @property
    def whole(self) -> list[slice]:
        """The tensors, which a block has whole or not at all; in their order."""
        return [eigenbasis.part for eigenbasis in self._eigenbases]

    def apply(self, block: slice, new: Tensor, x: Tensor, previous: Tensor, gradient: Tensor, scratch: Tensor) -> None:
        """Advance moments and bases, and write one block of x_{t+1}."""
        turned, options = self._gradient[block], self._options
        turned.copy_(gradient)
        tensors = self._of(block)
        for number, tensor in tensors:
            mine = _shifted(tensor.part, -block.start)
            tensor.learn(gradient[mine], options.shampoo_beta)
            if self._count >= options.precondition_every and (self._count + number) % options.precondition_every == 0:
                tensor.refresh(self._first[tensor.part], self._second[tensor.part])
            turned[mine] = tensor.into(gradient[mine])
        adam_direction(turned, self._first[block], self._second[block], self._step, scratch)
        for _, tensor in tensors:
            mine = _shifted(tensor.part, -block.start)
            scratch[mine] = tensor.out(scratch[mine])
        move(new, x, scratch, self._step, self.strides.pieces(block) if self.strides is not None else ())
        if self.pull is not None and self.origin is not None:
            for _, tensor in tensors:
                if self.strides is not None and not self.strides.scaled(tensor.part):
                    continue
                mine = _shifted(tensor.part, -block.start)
                way = torch.sub(x[mine], self.origin[tensor.part])
                new[mine] -= pulled_back(way, tensor, self._second[tensor.part], self.pull)

    def around(self, sampled: Tensor) -> Tensor:
        """All of the blocks, as both sides of a tensor have them, in which a sampled coordinate lies."""
        self._around = Around(self._eigenbases, sampled)
        return self._around.coordinates

    def applied(self, gradient: Tensor, x: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
        """(1 − β1) of the gradient, preconditioned: what α multiplies in displacement form."""
        if self._around is None:
            raise RuntimeError("expected around() to be asked before applied(), it was not")
        found = self._around.into(gradient)
        step = torch.empty_like(found)
        divided(found, self._second.index_select(0, self._around.coordinates), self._step, step)
        return self._around.out(step).mul_((1.0 - self._step.beta1) * self._step.first_correction)

    def _of(self, block: slice) -> list[tuple[int, Eigenbasis]]:
        """The tensors in a block, with their numbers."""
        if block.start not in self._within:
            numbered = enumerate(self._eigenbases)
            self._within[block.start] = [(i, t) for i, t in numbered if block.start <= t.part.start < block.stop]
        return self._within[block.start]

    def state_dict(self) -> State:
        """Adam's, and the matrices of all tensors one after another.

        Moments have names of their own: they are in bases that no other rule knows.
        """
        moments = {_TURNED.get(name, name): value for name, value in super().state_dict().items()}
        return {**moments, "products": self._products, "bases": self._bases}

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit."""
        restore(self._products, state, "products")
        restore(self._bases, state, "bases")
        super().load_state_dict({**state, **{name: state[turned] for name, turned in _TURNED.items()}})


def pulled_back(way: Tensor, tensor: Eigenbasis, second: Tensor, pull: Pull) -> Tensor:
    """What is taken back of a tensor's way (flat) since x_v: min(c v/mean(v), most) of it along each eigenvector.

    second: v, in the eigenbasis. Where all of it is next to 0, or it has overflowed, nothing.
    """
    mean = second.mean().item()
    if not LEAST < mean < math.inf:
        return torch.zeros_like(way)
    parts = torch.mul(second, pull.part / mean).clamp_(max=pull.most)
    return tensor.out(tensor.into(way).mul_(parts))


def matrix_values(options: RuleOptions, tensors: Sequence[Placed]) -> int:
    """How many float32 values the matrices of these tensors add to a checkpoint."""
    return 2 * sum(side.values for _, found in _turned(options, tensors) for side in found)


def _turned(options: RuleOptions, tensors: Sequence[Placed]) -> list[tuple[slice, tuple[Side, ...]]]:
    """The elements and the sides of those tensors that are turned, in their order."""
    found, left = [], options.precondition_values
    for offset, shape in sorted(tensors, key=lambda tensor: (math.prod(tensor[1]), tensor[0])):
        size, some = math.prod(shape), sides(shape, options.precondition_limit)
        if some and size <= left:
            found.append((slice(offset, offset + size), some))
            left -= size
    return sorted(found, key=lambda tensor: tensor[0].start)


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def turned_share(options: RuleOptions, tensors: Sequence[Placed], size: int) -> float:
    """How much of N parameters these tensors have whose gradients are turned, in [0, 1]; 0 for any other rule."""
    if options.name != "soap":
        return 0.0
    values: int = sum(part.stop - part.start for part, _ in _turned(options, tensors))
    return values / size


def spare_sample(
    options: RuleOptions, tensors: Sequence[Placed], size: int, count: int, seed: int, limit: int = REGION
) -> Tensor | None:
    """K = `count` of N coordinates (int64, rising), drawn so that what lies `around` them stays small; None for any K.

    Of a uniform sample those that lie in tensors which are turned are drawn again, uniformly from random blocks of
    these, of at most about `limit` values in all. None where no more than that are turned at all, or by no such rule.
    """
    if options.name != "soap":
        return None
    turned, limit = _turned(options, tensors), max(limit, count)
    if not 0 < count < size or sum(part.stop - part.start for part, _ in turned) <= limit:
        return None
    draw = random.Random(seed)
    uniform = torch.tensor(sorted(draw.sample(range(size), count)))
    inside = torch.zeros(count, dtype=torch.bool)
    for part, _ in turned:
        inside |= (uniform >= part.start) & (uniform < part.stop)
    blocks = [(part, found, number) for part, found in turned for number in range(block_count(found))]
    draw.shuffle(blocks)
    region, room = [], limit
    for part, found, number in blocks:
        block = Blocks(part, found, torch.tensor([number]))
        region.append(block.coordinates)
        room -= block.coordinates.numel()
        if room <= 0:
            break
    near = torch.cat(region)
    again = near[draw.sample(range(near.numel()), int(inside.sum()))]
    return torch.cat([uniform[~inside], again]).sort().values
