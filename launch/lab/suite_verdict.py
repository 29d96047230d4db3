"""The zero-tuning suite's criteria, each with whether it holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from launch.lab.comparison import geometric_mean
from launch.lab.contenders import DEFAULT
from launch.lab.suite_contenders import DEFAULT_OPEN
from launch.lab.suite_run import Result
from launch.lab.suite_score import Score, mean_curve, summary, throughout
from launch.numbers import shown

_MEAN, _WORST, _CHANGED = 1.0, 1.5, 1.2
_NEVER_WORSE, _MANY, _GAIN = 1.02, 16, 0.8


@dataclass(frozen=True)
class Verdict:
    """A criterion in words, with its numbers, and whether it holds; None where nothing was measured."""

    words: str
    holds: bool | None


def verdicts(results: Sequence[Result]) -> list[Verdict]:
    """Every criterion, judged by these results."""
    everywhere = [result for result in results if DEFAULT in result.scores]
    ours = [result for result in everywhere if result.setting.steady]
    both = [result for result in ours if DEFAULT_OPEN in result.scores]
    changed = [result.scores[DEFAULT].ratio for result in everywhere if not result.setting.steady]
    mean, worst, _ = summary([result.scores[DEFAULT] for result in ours])
    could = [result for result in everywhere if any(not score.diverged for score in _others(result))]
    lost = sum(result.scores[DEFAULT].diverged > 0 for result in could)
    gains = [closed_over_open(result) for result in both]
    many = geometric_mean([closed_over_open(result) for result in both if result.setting.workers >= _MANY])
    return [
        _verdict("settings where the default diverges and something tuned does not", lost, 0, bool(everywhere), str),
        _verdict("default over the best tuned, geometric mean", mean, _MEAN, bool(ours)),
        _verdict("default over the best tuned, worst setting", worst, _WORST, bool(ours)),
        _verdict(
            "default over the best tuned where something changes in mid-run, worst setting",
            max(changed, default=0.0),
            _CHANGED,
            bool(changed),
        ),
        _verdict("loop closed over open, worst setting", max(gains, default=0.0), _NEVER_WORSE, bool(both)),
        _verdict(f"loop closed over open, geometric mean for M ≥ {_MANY}", many, _GAIN, not math.isnan(many)),
    ]


def closed_over_open(result: Result) -> float:
    """Updates of the default with its loop closed, over those with its loop open."""
    return result.scores[DEFAULT].ratio / result.scores[DEFAULT_OPEN].ratio


def all_the_way(results: Sequence[Result]) -> list[str]:
    """The loop's worth at every loss on the way rather than at one, which no criterion asks for; nothing if unknown."""
    both = [r for r in results if r.setting.steady and {DEFAULT, DEFAULT_OPEN} <= r.scores.keys()]
    several = {r.setting.arena.label: _throughout(r) for r in both if r.setting.workers > 1}
    several = {label: ratio for label, ratio in several.items() if not math.isnan(ratio)}
    if not several:
        return []
    worst = max(several, key=lambda label: several[label])
    mean = shown(geometric_mean(list(several.values())), 3)
    return [
        "Loop closed over open with more workers than one, at every loss at which the open loop has a new low: "
        f"{mean} in geometric mean, {shown(several[worst], 3)} in the worst setting ({worst})."
    ]


def _throughout(result: Result) -> float:
    budget = len(result.standard.curve)
    return throughout(*(mean_curve(result.entries[label], budget) for label in (DEFAULT, DEFAULT_OPEN)))


def _others(result: Result) -> list[Score]:
    return [score for label, score in result.scores.items() if label not in (DEFAULT, DEFAULT_OPEN)]


def _verdict(
    words: str, value: float, most: float, known: bool, write: Callable[[float], str] = lambda value: shown(value, 3)
) -> Verdict:
    if not known:
        return Verdict(f"{words}: not measured (at most {most:g} is wanted)", None)
    holds = value <= most
    return Verdict(f"{words}: {write(value)} (at most {most:g}: {'holds' if holds else 'does not hold'})", holds)
