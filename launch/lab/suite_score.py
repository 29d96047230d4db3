"""The zero-tuning suite's score: updates to the loss of the best tuned baseline, as a ratio to that baseline's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from launch.lab.comparison import Entry, geometric_mean
from launch.lab.halving import COUNTED, diverged
from launch.lab.speedup import smoothed

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """How a contender did in a setting.

    ratio:    its updates to the level over the baseline's; above 1 it is slower.
    updates:  its own to the level, None where it does not come so far within the budget.
    final:    its last smoothed loss, mean over seeds; NaN when that is not finite.
    diverged: seeds that ended in numbers that are not finite, or worse than they began.
    seeds:    the ratio of each seed by itself.
    """

    ratio: float
    updates: int | None
    final: float
    diverged: int
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class Standard:
    """What contenders are measured by in a setting.

    best:  label of the tuned baseline that comes lowest within the part of the budget that counts.
    level: that lowest smoothed loss, mean over seeds.   curve: the baseline's, [updates].
    """

    best: str
    level: float
    curve: Curve
    window: int

    def score(self, entry: Entry) -> Score:
        """The score of a contender's runs."""
        own = mean_curve(entry, len(self.curve))
        lost = sum(diverged(outcome, self.window) for outcome in entry.outcomes)
        alone = [mean_curve(entry, len(self.curve), [k]) for k in range(len(entry.outcomes))]
        return Score(
            ratio=self.ratio(own, lost > 0),
            updates=first_at(own, self.level),
            final=float(own[-1]),
            diverged=lost,
            seeds=tuple(
                self.ratio(curve, diverged(outcome, self.window))
                for curve, outcome in zip(alone, entry.outcomes, strict=True)
            ),
        )

    def ratio(self, own: Curve, lost: bool) -> float:
        """Updates of a curve to the level over the baseline's.

        A curve that does not reach the level has used up the budget; that is compared with the baseline's updates to
        the lowest loss that the curve does reach. What diverged counts as if it had never learnt.
        """
        finite = own[np.isfinite(own)]
        if lost or not len(finite):
            return len(self.curve) / self.window
        level = max(self.level, float(finite.min()))
        updates = first_at(own, self.level) or len(self.curve)
        return updates / (first_at(self.curve, level) or self.window)


def standard(entries: Mapping[str, Entry], budget: int) -> Standard:
    """The standard that these tuned baselines set."""
    counted = round(budget * COUNTED)
    curves = {label: mean_curve(entry, budget) for label, entry in entries.items()}
    levels = {label: _lowest(curve[:counted]) for label, curve in curves.items()}
    best = min(levels, key=lambda label: levels[label])
    return Standard(best, levels[best], curves[best], entries[best].window)


def mean_curve(entry: Entry, budget: int, seeds: Sequence[int] | None = None) -> Curve:
    """Smoothed losses, mean over (some) seeds, [budget]; NaN from where a run ended early."""
    rows = np.full((len(entry.outcomes), budget), np.nan)
    for row, outcome in zip(rows, entry.outcomes, strict=True):
        means = smoothed(outcome.losses, entry.window)[:budget]
        row[: len(means)] = means
    mean: Curve = rows[slice(None) if seeds is None else list(seeds)].mean(axis=0)
    return mean


def first_at(curve: Curve, level: float) -> int | None:
    """Updates until a curve is at most `level`; None when it never is."""
    reached = np.flatnonzero(curve <= level)
    return int(reached[0]) + 1 if len(reached) else None


def throughout(own: Curve, other: Curve) -> float:
    """Updates of a curve over those of another one, not to one loss but to every loss at which the other has a new low.

    Their geometric mean; NaN where the other has none below its first. A loss that `own` does not reach counts as if it
    did at the end. One level may lie where two curves cross, or just behind a step of one of them; this does not.
    """
    lows, others = (np.fmin.accumulate(np.where(np.isfinite(curve), curve, np.inf)) for curve in (own, other))
    at = np.flatnonzero((others[1:] < others[:-1]) & np.isfinite(others[:-1])) + 1
    updates = np.minimum(np.searchsorted(-lows, -others[at]) + 1, len(lows))
    return geometric_mean([float(ratio) for ratio in updates / (at + 1)])


def profile(ratios: Sequence[float], at: Sequence[float]) -> list[float]:
    """Part of the settings whose ratio is at most each of `at`: a performance profile (Dolan and Moré 2002)."""
    return [float(np.mean([ratio <= limit for ratio in ratios])) for limit in at]


def summary(scores: Sequence[Score]) -> tuple[float, float, int]:
    """Geometric mean of the ratios, the worst of them, settings in which a seed diverged."""
    ratios = [score.ratio for score in scores]
    lost = sum(score.diverged > 0 for score in scores)
    return geometric_mean(ratios), max(ratios, default=math.nan), lost


def _lowest(curve: Curve) -> float:
    finite = curve[np.isfinite(curve)]
    return float(finite.min()) if len(finite) else math.inf
