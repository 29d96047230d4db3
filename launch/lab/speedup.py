"""The article's measure of speed: updates to the lowest smoothed training loss that two runs both reach."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Losses = NDArray[np.float64]


def smoothed(losses: Losses, window: int) -> Losses:
    """Mean of each loss and the `window` − 1 before it, [updates]; NaN for the first window − 1, which have too few.

    A window with a loss that is not finite has a mean that is not finite.
    """
    result = np.full(len(losses), np.nan)
    if len(losses) >= window:
        with np.errstate(invalid="ignore", over="ignore"):
            result[window - 1 :] = sliding_window_view(losses, window).mean(axis=1)
    return result


def lowest(losses: Losses, window: int) -> float:
    """The lowest smoothed loss; infinity when there is none."""
    means = smoothed(losses, window)
    means = means[np.isfinite(means)]
    return float(means.min()) if len(means) else math.inf


def updates_to(losses: Losses, level: float, window: int) -> int | None:
    """Updates until the smoothed loss is at most `level` for the first time; None when it never is."""
    reached = np.flatnonzero(smoothed(losses, window) <= level)
    return int(reached[0]) + 1 if len(reached) else None


def speedup(a: Losses, b: Losses, window: int) -> float:
    """How many times fewer updates b needs than a to the lowest smoothed loss that both reach; NaN when a run has none.

    Above 1: b is faster. Source: Zhang and Mitliagkas, YellowFin, section 5 (there with a window of 1,000).
    """
    level = max(lowest(a, window), lowest(b, window))
    of_a, of_b = updates_to(a, level, window), updates_to(b, level, window)
    return of_a / of_b if of_a is not None and of_b is not None else math.nan
