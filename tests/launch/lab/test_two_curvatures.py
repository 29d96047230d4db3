"""The toy of two curvatures: what the functions are, and that a margin over μ* brings the rate √μ."""

from __future__ import annotations

import numpy as np
import pytest

from launch.lab.two_curvatures import H_MAX, H_MIN, SHARE, TOYS, descend, starts, tuned


@pytest.mark.parametrize("toy", TOYS)
def test_a_toy_has_both_curvatures_and_is_not_convex(toy: str) -> None:
    x = np.linspace(0.01, 300, 100_000)
    h = TOYS[toy](x)
    assert (h.min(), h.max()) == (H_MIN, H_MAX)
    assert (np.diff(h * x) < 0).any()
    assert (TOYS[toy](-x) == h).all()


def test_tuned_momentum_puts_both_curvatures_on_the_edges_of_the_region() -> None:
    root = np.sqrt(tuned())
    assert (1 - root) ** 2 / H_MIN == pytest.approx((1 + root) ** 2 / H_MAX)


@pytest.mark.parametrize("toy", TOYS)
def test_a_margin_over_the_tuned_momentum_brings_the_root_of_it_from_nearly_everywhere(toy: str) -> None:
    assert descend(toy, 0.95, starts(40)).share >= SHARE


def test_exactly_tuned_momentum_is_caught_where_the_curvature_jumps() -> None:
    caught = descend("abrupt", tuned(), starts(40))
    assert caught.share < 0.1
    assert caught.sizes[-1].min() > 0.1
