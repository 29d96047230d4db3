"""Layers of a flat vector: how blocks fall into them, and what is refused."""

from __future__ import annotations

import pytest
import torch

from tuner.layers import Layers, Strides


def test_blocks_fall_into_layers() -> None:
    layers = Layers(10, (3, 5, 2))
    assert len(layers) == 3
    assert layers.pieces(slice(0, 10)) == [(0, slice(0, 3)), (1, slice(3, 8)), (2, slice(8, 10))]
    assert layers.pieces(slice(2, 4)) == [(0, slice(0, 1)), (1, slice(1, 2))]
    assert layers.pieces(slice(4, 6)) == [(1, slice(0, 2))]
    assert layers.pieces(slice(8, 10)) == [(2, slice(0, 2))]


def test_without_sizes_the_vector_is_one_layer() -> None:
    assert Layers(7).pieces(slice(2, 7)) == [(0, slice(0, 5))]


@pytest.mark.parametrize("sizes", [(3, 3), (5, 5, 0), (11, -1)])
def test_sizes_that_do_not_make_up_the_vector_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="layers: expected positive sizes that add up to 10, got"):
        Layers(10, sizes)


def test_the_layer_of_each_sampled_element() -> None:
    picked = torch.tensor([0, 2, 3, 9])
    assert Layers(10, (3, 5, 2)).numbers(lambda vector: vector[picked]).tolist() == [0, 0, 1, 2]


def test_strides_leave_out_what_is_one() -> None:
    strides = Strides(Layers(10, (3, 5, 2)), (2.0, 1.0, 0.5))
    assert strides.pieces(slice(0, 10)) == [(slice(0, 3), 2.0), (slice(8, 10), 0.5)]
