"""`yfps sweep`: a grid over seeds becomes one tidy table, the curves behind it, and a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from launch.lab.finding import Table, write_csv
from launch.lab.grid import Cell, LoadedGrid
from launch.lab.picture import band, curve, labelled, legend, panels, save
from launch.lab.points import Outcome, run_points
from launch.lab.speedup import lowest, smoothed, updates_to

_MEASURES = (
    "updates",
    "diverged",
    "lowest_smoothed_loss",
    "updates_to_lowest",
    "final_smoothed_loss",
    "best_eval",
    "mean_staleness",
    "mean_total_momentum",
    "momentum_min",
    "seconds",
    "key",
)
_CURVE_POINTS = 200


def run_sweep(grid: LoadedGrid, folder: Path, jobs: int | None, show: Callable[[str], None]) -> list[Path]:
    """Run what is missing in `folder`, write table.csv, curves.csv and sweep.png there; returns their paths."""
    outcomes = run_points([cell.point for cell in grid.cells], folder, jobs, show)
    paths = [folder / name for name in ("table.csv", "curves.csv", "sweep.png")]
    write_csv(paths[0], table(grid, outcomes))
    write_csv(paths[1], curves(grid, outcomes))
    left, right = panels(2, 2, (11.5, 4.4))
    _draw_best(left, grid, outcomes)
    _draw_sensitivity(right, grid, outcomes)
    figure = left.get_figure(root=True)
    if figure is not None:
        save(figure, paths[2])
    return paths


def table(grid: LoadedGrid, outcomes: Sequence[Outcome]) -> Table:
    """A row a point: variant, every swept key, seed, and what it came to. `seconds` are of real time."""
    rows = [
        [*_named(grid, cell), *measures(outcome, grid.window)]
        for cell, outcome in zip(grid.cells, outcomes, strict=True)
    ]
    return Table(["variant", *grid.keys, "seed", *_MEASURES], rows)


def measures(outcome: Outcome, window: int) -> list[Any]:
    """What a point came to, in the table's order."""
    means = smoothed(outcome.losses, window)
    best = lowest(outcome.losses, window)
    known = math.isfinite(best)
    summary = outcome.summary
    return [
        len(outcome.losses),
        outcome.diverged,
        best if known else None,
        updates_to(outcome.losses, best, window) if known else None,
        float(means[-1]) if len(means) else None,
        *(summary.get(name) for name in ("best_eval", "mean_staleness", "mean_total_momentum", "momentum_min")),
        outcome.seconds,
        outcome.point.key,
    ]


def curves(grid: LoadedGrid, outcomes: Sequence[Outcome]) -> Table:
    """Smoothed training losses of all points, at most two hundred a point."""
    rows: list[list[Any]] = []
    for cell, outcome in zip(grid.cells, outcomes, strict=True):
        means = smoothed(outcome.losses, grid.window)
        step = max(1, len(means) // _CURVE_POINTS)
        rows += [[*_named(grid, cell), k + 1, means[k]] for k in range(grid.window - 1, len(means), step)]
    return Table(["variant", *grid.keys, "seed", "update", "smoothed_loss"], rows)


def _named(grid: LoadedGrid, cell: Cell) -> list[Any]:
    return [cell.variant, *(cell.swept.get(key) for key in grid.keys), cell.seed]


def _settings(grid: LoadedGrid, outcomes: Sequence[Outcome]) -> dict[str, list[tuple[Cell, list[Outcome]]]]:
    """Variant -> its settings, each with the outcomes over seeds."""
    found: dict[str, dict[str, tuple[Cell, list[Outcome]]]] = {}
    for cell, outcome in zip(grid.cells, outcomes, strict=True):
        group = found.setdefault(cell.variant, {})
        group.setdefault(repr(cell.swept), (cell, []))[1].append(outcome)
    return {variant: list(group.values()) for variant, group in found.items()}


def _mean_lowest(outcomes: Sequence[Outcome], window: int) -> float:
    return float(np.mean([lowest(outcome.losses, window) for outcome in outcomes]))


def _draw_best(panel: Axes, grid: LoadedGrid, outcomes: Sequence[Outcome]) -> None:
    """The best setting of each variant, its spread over seeds shaded."""
    labelled(panel, "Best of each variant", f"updates (loss smoothed over {grid.window})", "training loss")
    for index, (variant, settings) in enumerate(_settings(grid, outcomes).items()):
        cell, best = min(settings, key=lambda setting: _mean_lowest(setting[1], grid.window))
        length = min(len(outcome.losses) for outcome in best)
        means = np.stack([smoothed(outcome.losses[:length], grid.window) for outcome in best])
        updates = np.arange(1, length + 1)
        words = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in cell.swept.items())
        curve(panel, updates, means.mean(axis=0), f"{variant} ({words})" if words else variant, index)
        band(panel, updates, means.min(axis=0), means.max(axis=0), index)
    legend(panel)


def _draw_sensitivity(panel: Axes, grid: LoadedGrid, outcomes: Sequence[Outcome]) -> None:
    """The lowest loss over the values of the first swept number, at the best of all else."""
    kinds = {key: [cell.swept.get(key) for cell in grid.cells] for key in grid.keys}
    numeric = [key for key, values in kinds.items() if all(isinstance(v, int | float) or v is None for v in values)]
    key = numeric[0] if numeric else ""
    positive = all(value is None or value > 0 for value in kinds.get(key, ()))
    labelled(
        panel, "Sensitivity", key or "nothing swept", "lowest smoothed loss", xscale="log" if positive else "linear"
    )
    for index, (variant, settings) in enumerate(_settings(grid, outcomes).items()):
        lows: dict[float, float] = {}
        for cell, group in settings:
            if cell.swept.get(key) is not None and not any(outcome.diverged for outcome in group):
                low = _mean_lowest(group, grid.window)
                lows[cell.swept[key]] = min(low, lows.get(cell.swept[key], math.inf))
        finite = sorted((x, low) for x, low in lows.items() if math.isfinite(low))
        if finite:
            curve(panel, [x for x, _ in finite], [low for _, low in finite], variant, index, marker="o", markersize=4)
    legend(panel)
