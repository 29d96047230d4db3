"""Over how many updates the curves of a report are averaged: the usual window of a length, and those to choose from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from launch.history import History

_SHARE = 50
_LONGEST = 1000


@dataclass(frozen=True)
class Smoothing:
    """Windows in updates: the one a page opens with, and all that it offers, shortest first."""

    usual: int
    choices: tuple[int, ...]


def smoothing(runs: Sequence[History]) -> Smoothing:
    """About a fiftieth of the longest run, at most a thousand updates; the same for all runs, so that they compare.

    Offered beside it: a fifth of it, five times it, and none (1), as far as they are shorter than half the run.
    """
    longest = max((len(run.rows) for run in runs), default=0)
    usual = _round(min(_LONGEST, max(1, longest // _SHARE)))
    wanted = {1, usual, max(1, usual // 5), 5 * usual}
    return Smoothing(usual, tuple(sorted(window for window in wanted if window in (1, usual) or window <= longest / 2)))


def _round(value: int) -> int:
    """The nearest of 1, 2, 5, 10, 20, 50, ... by ratio."""
    power = int(f"1{'0' * (len(str(value)) - 1)}")
    return min((power, 2 * power, 5 * power, 10 * power), key=lambda step: abs(math.log(step / value)))
