"""Participation of gradients: known answers, what it makes of a layer's steps, and what is kept of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tuner.layers import Layers
from tuner.sparsity import DENSE, EVERY, LONGEST, Sparsity

SIZE = 4000
HALVES = Layers(SIZE, (1000, 3000))


def looked(gradients: list[Tensor], layers: Layers = HALVES, blocks: int = 1) -> Sparsity:
    sparsity = Sparsity(layers)
    for gradient in gradients:
        for part in [slice(k * SIZE // blocks, (k + 1) * SIZE // blocks) for k in range(blocks)]:
            sparsity.look(part, gradient[part])
        sparsity.next()
    return sparsity


def sparse(part: float, seed: int) -> Tensor:
    """Normal numbers in this part of a vector, zeros elsewhere."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, generator=draw) * (torch.rand(SIZE, generator=draw) < part)


def means(sparsity: Sparsity) -> list[float]:
    found: list[float] = sparsity.state_dict()["means"]
    return found


@pytest.mark.parametrize("part", [1.0, 0.2, 0.02])
def test_of_normal_numbers_in_a_part_of_a_layer_it_is_that_part_of_two_over_pi(part: float) -> None:
    assert means(looked([sparse(part, seed) for seed in range(40)])) == pytest.approx([2 / math.pi * part] * 2, rel=0.1)


def test_a_dense_layer_is_left_alone_and_a_sparse_one_steps_longer_up_to_a_limit() -> None:
    gradient = torch.ones(SIZE)
    gradient[1000:] = 0.0
    gradient[1000:1150] = -3.0  # 150 of 3,000
    assert looked([gradient]).factors(1.0) == pytest.approx([1.0, DENSE / 0.05], rel=1e-6)
    gradient[1001:] = 0.0
    assert looked([gradient]).factors(1.0) == [1.0, LONGEST]


def test_stale_gradients_lengthen_less() -> None:
    sparsity = looked([sparse(0.02, seed) for seed in range(10)])
    whole, of_sixteen = sparsity.factors(1.0), sparsity.factors(1 / 16)
    assert min(whole) > 4.0
    assert of_sixteen == pytest.approx([factor**0.25 for factor in whole], rel=1e-9)


def test_an_embedding_is_lengthened_in_full_however_stale_and_by_the_inverse_freshness_at_first() -> None:
    sparsity = Sparsity(HALVES, embeddings=(1,))
    sparsity.look(slice(0, SIZE), sparse(0.02, 1))
    sparsity.next()
    (other, whole), (stale, same) = sparsity.factors(1.0), sparsity.factors(1 / 16)
    assert stale == pytest.approx(other**0.25, rel=1e-9)
    assert same == whole
    assert whole < 16.0, "or the next line says nothing"
    assert sparsity.least([stale, same], 1 / 16) == [stale, 16.0]
    assert sparsity.least([other, whole], 1.0) == [other, whole]


@pytest.mark.parametrize("numbers", [(2,), (-1,), (0, 5)])
def test_an_embedding_that_is_no_layer_is_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="embeddings: expected numbers of 2 layers, got"):
        Sparsity(HALVES, embeddings=numbers)
    sparsity = Sparsity(HALVES)
    with pytest.raises(ValueError, match="embeddings: expected numbers of 2 layers, got"):
        sparsity.load_state_dict({**sparsity.state_dict(), "embeddings": list(numbers)})


def test_a_state_of_before_embeddings_were_told_goes_on_without() -> None:
    told = Sparsity(HALVES, embeddings=(0,))
    state = told.state_dict()
    told.load_state_dict(state)
    assert told.least([1.0, 1.0], 0.25) == [4.0, 1.0]
    told.load_state_dict({name: value for name, value in state.items() if name != "embeddings"})
    assert told.least([1.0, 1.0], 0.25) == [1.0, 1.0]


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e18])
def test_the_scale_of_the_gradients_does_not_matter(scale: float) -> None:
    gradients = [sparse(0.05, seed) for seed in range(8)]
    assert looked([scale * g for g in gradients]).factors(1.0) == pytest.approx(
        looked(gradients).factors(1.0), rel=1e-5
    )


def test_blocks_do_not_matter() -> None:
    gradients = [sparse(0.05, seed) for seed in range(8)]
    assert means(looked(gradients, blocks=5)) == pytest.approx(means(looked(gradients)), rel=1e-5)


def test_one_gradient_in_four_is_looked_at() -> None:
    first, others = torch.ones(SIZE), sparse(0.01, 1)
    assert means(looked([first, *[others] * (EVERY - 1)])) == [1.0, 1.0]
    assert max(means(looked([first, *[others] * EVERY]))) < 1.0


def test_before_any_gradient_and_without_one_all_steps_are_as_they_are() -> None:
    assert Sparsity(HALVES).factors(1.0) == [1.0, 1.0]
    assert looked([torch.zeros(SIZE)] * 9).factors(1.0) == [1.0, 1.0]


def test_a_dropped_gradient_leaves_no_trace() -> None:
    sparsity = looked([sparse(0.05, seed) for seed in range(EVERY)])
    before = sparsity.state_dict()
    sparsity.look(slice(0, SIZE), torch.full((SIZE,), math.nan))
    sparsity.drop()
    assert sparsity.state_dict() == before
    sparsity.look(slice(0, SIZE), torch.ones(SIZE))
    sparsity.next()
    assert all(math.isfinite(mean) for mean in means(sparsity))


def test_its_state_continues() -> None:
    one, other = looked([sparse(0.05, seed) for seed in range(7)]), Sparsity(HALVES)
    other.load_state_dict(one.state_dict())
    for seed in range(9):
        for each in (one, other):
            each.look(slice(0, SIZE), sparse(0.3, seed))
            each.next()
    assert one.state_dict() == other.state_dict()
