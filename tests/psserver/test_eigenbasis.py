"""Bases of rows and columns: what they turn, that the way back is one, and what a new basis does to what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from psserver.eigenbasis import Eigenbasis, Side, sides


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(blocks: int, size: int) -> torch.Tensor:
    return torch.stack([torch.linalg.qr(gaussian(size, size, seed=block))[0] for block in range(blocks)])


def eigenbasis(shape: tuple[int, int], limit: int) -> tuple[Eigenbasis, torch.Tensor, torch.Tensor]:
    found = sides(shape, limit)
    room = sum(side.values for side in found)
    products, bases = torch.zeros(room, dtype=torch.float64), torch.zeros(room, dtype=torch.float64)
    return Eigenbasis(slice(0, shape[0] * shape[1]), found, products, bases), products, bases


@pytest.mark.parametrize("blocks", [1, 3])
def test_turning_is_a_product_with_the_blocks_bases(blocks: int) -> None:
    matrix = gaussian(6, 12)
    rows, columns = orthogonal(blocks, 6 // blocks), orthogonal(blocks, 12 // blocks)
    left, right = torch.block_diag(*rows), torch.block_diag(*columns)
    of_rows, of_columns = Side(6, 12, blocks, True), Side(6, 12, blocks, False)
    torch.testing.assert_close(of_rows.turn(matrix.view(-1), rows), (left.T @ matrix).reshape(-1))
    torch.testing.assert_close(of_columns.turn(matrix.view(-1), columns), (matrix @ right).reshape(-1))
    torch.testing.assert_close(of_rows.turn(of_rows.turn(matrix.view(-1), rows), rows.mT), matrix.view(-1))
    torch.testing.assert_close(of_columns.turn(of_columns.turn(matrix.view(-1), columns), columns.mT), matrix.view(-1))


@pytest.mark.parametrize("blocks", [1, 2])
def test_products_are_those_within_a_block(blocks: int) -> None:
    matrix = gaussian(4, 6)
    for side, whole in ((Side(4, 6, blocks, True), matrix @ matrix.T), (Side(4, 6, blocks, False), matrix.T @ matrix)):
        for block, found in enumerate(side.products(matrix.view(-1))):
            part = slice(block * side.size, (block + 1) * side.size)
            torch.testing.assert_close(found, whole[part, part])


def test_a_long_side_falls_into_the_fewest_equal_blocks_within_the_limit() -> None:
    assert sides((16, 3, 3, 3), 64) == (Side(16, 27, 1, True), Side(16, 27, 1, False))
    assert sides((64, 576), 64) == (Side(64, 576, 1, True), Side(64, 576, 9, False))
    assert sides((100, 2), 64) == (Side(100, 2, 2, True), Side(100, 2, 1, False))
    assert sides((1, 10), 64) == (Side(1, 10, 1, False),), "a single row has no basis"
    assert sides((67, 4), 64) == (Side(67, 4, 1, False),), "67 is prime, and blocks of one are not worth it"
    assert sides((67, 1), 64) == ()


def test_a_new_basis_makes_the_products_diagonal_and_keeps_what_the_first_vector_is() -> None:
    basis, products, bases = eigenbasis((4, 6), 3)
    scales = torch.logspace(0, 2, 6, dtype=torch.float64)
    for seed in range(200):
        basis.learn((gaussian(4, 6, seed=seed) @ orthogonal(1, 6)[0] * scales).view(-1), 0.99)
    first, second = gaussian(24, seed=1000), gaussian(24, seed=1001).square()
    meant = basis.out(first.clone())
    basis.refresh(first, second)
    torch.testing.assert_close(basis.out(first), meant)
    start = 0
    for side in sides((4, 6), 3):
        shape = (side.blocks, side.size, side.size)
        c, q = (room[start : start + side.values].view(shape) for room in (products, bases))
        turned = torch.bmm(torch.bmm(q.mT, c), q)
        diagonal = torch.diagonal(turned, dim1=1, dim2=2)
        torch.testing.assert_close(turned, torch.diag_embed(diagonal), atol=1e-9 * float(diagonal.max()), rtol=0.0)
        assert not torch.allclose(q, torch.eye(side.size, dtype=torch.float64).expand(shape))
        start += side.values


def test_mean_squares_turn_as_those_of_independent_coordinates() -> None:
    basis, _, _ = eigenbasis((3, 5), 8)
    for seed in range(20):
        basis.learn(gaussian(15, seed=seed), 0.9)
    second = gaussian(15, seed=50).square()
    kept = second.clone()
    basis.refresh(torch.zeros(15, dtype=torch.float64), second)
    draws = torch.stack([basis.into(gaussian(15, seed=100 + draw) * kept.sqrt()) for draw in range(4000)])
    np.testing.assert_allclose(second.numpy(), draws.square().mean(0).numpy(), rtol=0.15)
    assert float(second.sum()) == pytest.approx(float(kept.sum())), "turning keeps the length"


def test_products_that_overflowed_leave_the_basis() -> None:
    basis, products, bases = eigenbasis((3, 4), 8)
    products.fill_(float("inf"))
    before, first, second = bases.clone(), gaussian(12), gaussian(12, seed=1).square()
    kept = first.clone()
    basis.refresh(first, second)
    assert torch.equal(bases, before)
    assert torch.equal(first, kept)
