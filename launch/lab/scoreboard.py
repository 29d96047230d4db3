"""Tables and curves of a race: what every comparison shows in the same way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from launch.lab.comparison import SEEDS, Entry, common, geometric_mean
from launch.lab.finding import Table
from launch.lab.picture import band, curve, labelled, legend
from launch.lab.speedup import lowest, smoothed
from launch.lab.workloads import Workload
from launch.numbers import NOTHING, shown

COLUMNS = (
    "method",
    "setting",
    "tried",
    "lowest smoothed loss",
    "updates: Adam, this",
    "virtual seconds",
    "speedup over Adam",
    "best evaluation",
    "mean total momentum",
    "real seconds a run",
)
_RUNS = (
    "method",
    "setting",
    "workers",
    "seed",
    "diverged",
    "lowest_smoothed_loss",
    "common_loss",
    "updates_of_adam",
    "updates",
    "virtual_seconds",
    "speedup_over_adam",
    "best_eval",
    "mean_staleness",
    "mean_total_momentum",
    "momentum_min",
    "real_seconds",
    "key",
)
_CURVE_POINTS = 150


def protocol(chosen: Workload) -> str:
    """How a race was run, for the notes."""
    return (
        f"{chosen.words}; {chosen.updates:,} updates, losses smoothed over {chosen.window}. Settings are tuned with "
        f"seed {SEEDS[0]}, by lowest smoothed training loss; the best runs with seeds {SEEDS[0]} to {SEEDS[-1]}: mean "
        "(lowest … highest), of speedups the geometric mean. A speedup is the ratio of updates to the lowest smoothed "
        "loss that both reach; of a method that learns little, and so soon reaches its lowest, it says nothing."
    )


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean, and lowest … highest over seeds."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return NOTHING
    lost = f", {len(values) - len(known)} of {len(values)} without" if len(known) < len(values) else ""
    mean, low, high = (shown(value, digits) for value in (float(np.mean(known)), min(known), max(known)))
    return f"{mean} ({low} … {high}{lost})"


def ratio(values: Sequence[float]) -> str:
    """Geometric mean of speedups, and lowest … highest over seeds; one number when all are equal."""
    mean = geometric_mean(values)
    if math.isnan(mean):
        return spread(values)
    if len({*values}) == 1:
        return shown(mean, 3)
    return f"{shown(mean, 3)} ({shown(min(values), 3)} … {shown(max(values), 3)})"


def score(entry: Entry, adam: Entry) -> list[Any]:
    """A row of a table with COLUMNS. Updates and speedup are to the lowest loss that this and Adam both reach.

    Virtual seconds are to that loss, too, a gradient taking one on every worker; those of a run are real.
    """
    levels = common(entry, adam)
    pair = [_mean_updates(one.updates(levels)) for one in (adam, entry)]
    contender = entry.tuned.contender
    lost = sum(outcome.diverged for outcome in entry.outcomes)
    return [
        entry.label,
        contender.words(entry.tuned.chosen),
        len(contender.candidates),
        spread(entry.lows, 4) + (f", {lost} diverged" if lost else ""),
        ", ".join(NOTHING if value is None else f"{value:,.0f}" for value in pair),
        None if pair[1] is None else pair[1] / entry.workers,
        ratio(entry.speedups(adam)),
        entry.mean_of("best_eval"),
        entry.mean_of("mean_total_momentum"),
        entry.seconds(),
    ]


def runs(entries: Sequence[Entry], adam: Entry) -> Table:
    """A row a run: all numbers, for the CSV file."""
    rows: list[list[Any]] = []
    for entry in entries:
        levels = common(entry, adam)
        columns = (SEEDS, entry.outcomes, entry.lows, levels, adam.updates(levels), entry.updates(levels))
        for (seed, outcome, low, level, theirs, ours), gain in zip(
            zip(*columns, strict=True), entry.speedups(adam), strict=True
        ):
            summary = outcome.summary
            rows.append(
                [
                    entry.label,
                    entry.tuned.contender.words(entry.tuned.chosen),
                    entry.workers,
                    seed,
                    outcome.diverged,
                    *(value if math.isfinite(value) else None for value in (low, level)),
                    theirs,
                    ours,
                    ours / entry.workers if ours is not None else None,
                    gain,
                    *(summary.get(k) for k in ("best_eval", "mean_staleness", "mean_total_momentum", "momentum_min")),
                    outcome.seconds,
                    outcome.point.key,
                ]
            )
    return Table(list(_RUNS), rows)


def tried(entries: Sequence[Entry]) -> Table:
    """A row for every candidate that was tried: the first seed's lowest smoothed loss."""
    rows = []
    for entry in entries:
        for chosen, outcome in entry.tuned.tried:
            low = Entry(entry.tuned, (outcome,), entry.window, entry.workers).lows[0]
            words = entry.tuned.contender.words(chosen)
            best = chosen == entry.tuned.chosen
            rows.append([entry.label, words, outcome.diverged, low if math.isfinite(low) else None, best])
    return Table(["method", "setting", "diverged", "lowest_smoothed_loss", "chosen"], rows)


def curves(entries: Mapping[str, Entry]) -> Table:
    """Smoothed losses of every run, at most 150 a run."""
    rows = []
    for name, entry in entries.items():
        for seed, outcome in zip(SEEDS, entry.outcomes, strict=True):
            means = smoothed(outcome.losses, entry.window)
            step = max(1, len(means) // _CURVE_POINTS)
            rows += [[name, seed, k + 1, means[k]] for k in range(entry.window - 1, len(means), step)]
    return Table(["method", "seed", "update", "smoothed_loss"], rows)


def limits(entries: Iterable[Entry]) -> tuple[float, float] | None:
    """The losses a picture should span: from the lowest of all to where most runs began; what diverges leaves it."""
    everyone = [(entry.window, outcome.losses) for entry in entries for outcome in entry.outcomes]
    first = [float(losses[:window].mean()) for window, losses in everyone if len(losses) >= window]
    low = min((lowest(losses, window) for window, losses in everyone), default=math.inf)
    if not first or not math.isfinite(low):
        return None
    high = max(float(np.median(first)), low)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def draw(panel: Axes, title: str, entries: Mapping[str, Entry], span: tuple[float, float] | None) -> None:
    """The mean over seeds of each method's smoothed losses, its spread shaded. span: lowest and highest loss shown."""
    window = next(iter(entries.values())).window
    labelled(panel, title, f"updates (loss smoothed over {window})", "training loss")
    for index, (name, entry) in enumerate(entries.items()):
        length = min(len(outcome.losses) for outcome in entry.outcomes)
        means = np.stack([smoothed(outcome.losses[:length], window) for outcome in entry.outcomes])
        updates = np.arange(1, length + 1)
        curve(panel, updates, means.mean(axis=0), name, index)
        band(panel, updates, means.min(axis=0), means.max(axis=0), index)
    if span is not None:
        panel.set_ylim(*span)
    legend(panel, fontsize=9)


def edges(entries: Sequence[Entry]) -> list[str]:
    """A note when a method's best learning rate is at the edge of what was tried."""
    at_edge = [entry.label for entry in entries if entry.tuned.contender.at_edge(entry.tuned.chosen)]
    if not at_edge:
        return []
    return [f"The best learning rate lies at the edge of its grid, so a wider one may do better: {', '.join(at_edge)}."]


def _mean_updates(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
