"""The minimum of a loss along a ray: bracketed by doubling or halving, then the vertex of a parabola."""

from __future__ import annotations

import math
from collections.abc import Callable

MOST = 8
"""Losses that one search asks for at most, that of length 0 among them; three where the start is near."""

_Point = tuple[float, float]  # length and loss


def line_minimum(loss: Callable[[float], float], slope: float, start: float | None) -> tuple[float | None, float]:
    """Return the length at which `loss` is least, None if that was not bracketed; and where to start the next time.

    loss:  of a length s ≥ 0 along the ray, whose derivative at 0 is −`slope`, with `slope` above 0.
    start: the first length to try, what an earlier search returned. None: 2 |loss(0)|/slope, which is the answer
           itself on a parabola whose least value is 0.

    Lengths are doubled while the loss falls; if it does not fall at first, they are halved until it is below loss(0).
    Of three losses at a < b < c with the least in the middle, the answer is the vertex of the parabola through them,
    which lies between: exact where the loss is a parabola, whatever the start. A loss that is not finite counts as a
    rise, and if it is the one at c the answer is b.
    """
    low = (0.0, loss(0.0))
    if not math.isfinite(low[1]):
        return None, start or 1.0
    first = start or 2.0 * abs(low[1]) / slope or 1.0
    middle = (first, loss(first))
    if middle[1] < low[1]:
        for _ in range(MOST - 2):
            high = (2.0 * middle[0], loss(2.0 * middle[0]))
            if not high[1] < middle[1]:
                return _found(low, middle, high)
            low, middle = middle, high
        return None, middle[0]
    for _ in range(MOST - 2):
        high, middle = middle, (middle[0] / 2.0, loss(middle[0] / 2.0))
        if middle[1] < low[1]:
            return _found(low, middle, high)
    return None, middle[0]


def _found(low: _Point, middle: _Point, high: _Point) -> tuple[float, float]:
    """The vertex, as answer and as next start; low and high lie above the middle."""
    (a, at_a), (b, at_b), (c, at_c) = low, middle, high
    if not math.isfinite(at_c):
        return b, b
    left, right = (b - a) * (at_c - at_b), (c - b) * (at_a - at_b)  # right > 0, left ≥ 0
    vertex = b - 0.5 * ((b - a) * left - (c - b) * right) / (left + right)
    return vertex, vertex
