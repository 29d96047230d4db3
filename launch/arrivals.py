"""Staleness as a choice: in which order simulated workers push."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

Staleness = Literal["round-robin", "memoryless", "none"]


def arrivals(staleness: Staleness, workers: int, seed: int) -> Iterator[int]:
    """Which worker pushes next, without end.

    round-robin: each in turn, so that staleness is M − 1 from the M-th push on. none: each in turn too, but at the
    newest version. memoryless: one drawn uniformly at random, independently each time; mean staleness M − 1
    (Mitliagkas et al. 2016).
    """
    if staleness == "memoryless":
        random = np.random.default_rng([seed, 0x5EED])
        while True:
            yield int(random.integers(workers))
    while True:
        yield from range(workers)
