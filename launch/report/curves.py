"""The charts that runs share: loss, evaluations, momentum three ways, learning rate and staleness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from launch.history import History, Numbers, smoothed
from launch.report.chart import Chart, Key, points, rounded, thinned, words
from launch.report.smoothing import Smoothing

DASHES = ("solid", "dash", "dot", "dashdot")
COLOURS = 7
_SPAN = 30
_BARS = 60
_FEW = 40
_PERCENT = {"tickformat": ".3~p", "hoverformat": ".4~p"}
_TARGET, _TOTAL, _ALGORITHMIC = 0, 3, 4
_BESIDE = (2, 1, 5)


def curves(runs: Sequence[History], smoothing: Smoothing) -> list[Chart]:
    """The charts in the order they are shown; those in which nothing was measured are empty."""
    return [_loss(runs, smoothing), *_evaluations(runs), _momentum(runs, smoothing), _rate(runs), _staleness(runs)]


def _loss(runs: Sequence[History], smoothing: Smoothing) -> Chart:
    traces, measured, shown = [], [], []
    for index in range(len(runs)):
        loss = runs[index].column("loss")
        measured.append(loss)
        for window in smoothing.choices:
            values = smoothed(loss, window) if window > 1 else loss
            traces += _curve(runs, index, values, window=window)
            if window == smoothing.usual:
                shown.append(values)
        if len(runs) == 1 and smoothing.usual > 1:
            traces = [*_curve(runs, index, loss, faint=True), *traces]
    return Chart("loss", "Training loss", traces, _axis(shown, measured), log=_logarithmic(shown))


def _momentum(runs: Sequence[History], smoothing: Smoothing) -> Chart:
    keys = _momentum_keys(runs)
    traces: list[dict[str, Any]] = []
    for index, run in enumerate(runs):
        for name, key in keys.items():
            values = run.column(name)
            if not name.startswith("total_momentum"):
                traces += _curve(runs, index, values, key=key)
                continue
            for window in smoothing.choices:
                traces += _curve(runs, index, smoothed(values, window), window=window, key=key)
    layout = {"yaxis": {"zeroline": True}}
    return Chart("momentum", "Momentum", traces, layout, keys=tuple(keys.values()))


def _momentum_keys(runs: Sequence[History]) -> dict[str, Key]:
    """Column of metrics.jsonl -> how it is drawn; with the estimators beside the one in use that any run has."""
    alone = len(runs) == 1
    keys = {
        "target_momentum": Key("kind:target", "target", "dot", _TARGET if alone else None),
        "total_momentum": Key("kind:total", "total, measured", "solid", _TOTAL if alone else None),
        "momentum": Key("kind:algorithmic", "algorithmic", "dash", _ALGORITHMIC if alone else None),
    }
    beside = {column: name for run in runs for column, name in run.beside.items()}
    for number, (column, name) in enumerate(beside.items()):
        colour = _BESIDE[number % len(_BESIDE)] if alone else None
        keys[column] = Key(f"kind:beside-{number}", f"total by {name}", "dashdot", colour)
    return keys


def _rate(runs: Sequence[History]) -> Chart:
    columns = [run.column("learning_rate") for run in runs]
    traces = [trace for index, column in enumerate(columns) for trace in _curve(runs, index, column)]
    return Chart("learning-rate", "Learning rate", traces, _axis(columns, columns), log=_logarithmic(columns))


def _evaluations(runs: Sequence[History]) -> list[Chart]:
    names = list({name: None for run in runs for name in run.evaluated})
    charts = []
    for number, name in enumerate(names):
        traces = [trace for index, run in enumerate(runs) for trace in _trace(runs, index, run.evaluation(name))]
        layout = {"yaxis": {**_PERCENT, "rangemode": "nonnegative"}} if name == "accuracy" else {}
        charts.append(Chart(f"evaluation-{number}", f"Evaluation: {name}", traces, layout))
    return charts or [Chart("evaluation", "Evaluation", [])]


def _curve(runs: Sequence[History], index: int, values: Numbers, **more: Any) -> list[dict[str, Any]]:
    return _trace(runs, index, (runs[index].updates, runs[index].column("seconds"), values), **more)


def _trace(
    runs: Sequence[History],
    index: int,
    columns: tuple[Numbers, Numbers, Numbers],
    *,
    window: int | None = None,
    key: Key | None = None,
    faint: bool = False,
) -> list[dict[str, Any]]:
    """The trace of a run's updates, seconds and values; none when nothing was measured."""
    chosen = thinned(columns[2], points(len(runs)))
    if not len(chosen):
        return []
    updates, seconds, values = (rounded(column[chosen]) for column in columns)
    dash = key.dash if key is not None else DASHES[index // COLOURS % len(DASHES)]
    colour = key.colour if key is not None and key.colour is not None else index % COLOURS
    meta: dict[str, Any] = {"colour": colour, "seconds": seconds, "tags": [f"run:{index}"]}
    if key is not None:
        meta["tags"].append(key.tag)
    if window is not None:
        meta["window"] = window
    name = words(runs[index].name)
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": name if key is None else words(key.label) if len(runs) == 1 else f"{name}, {words(key.label)}",
        "x": updates,
        "y": values,
        "mode": "lines+markers" if len(chosen) <= _FEW and not faint else "lines",
        "line": {"width": 1 if faint else 2, "dash": dash},
        "meta": meta,
    }
    return [trace | {"opacity": 0.3, "hoverinfo": "skip"} if faint else trace]


def _staleness(runs: Sequence[History]) -> Chart:
    columns = [values[np.isfinite(values)] for values in (run.column("staleness") for run in runs)]
    highest = max((values.max() for values in columns if len(values)), default=0.0)
    step = max(1, int(np.ceil((highest + 1) / _BARS)))
    edges = np.arange(0, highest + 2 * step + 1, step)  # one bar beyond the highest, so that an outline comes down
    traces = []
    for index, values in enumerate(columns):
        if not len(values):
            continue
        share = np.histogram(values, bins=edges - 0.5)[0] / len(values)
        name = f"{words(runs[index].name)}, mean {values.mean():.1f}"
        meta = {"colour": index % COLOURS, "tags": [f"run:{index}"]}
        trace: dict[str, Any] = {
            "name": name,
            "x": rounded(edges[:-1] + (step - 1) / 2),
            "y": rounded(share),
            "meta": meta,
        }
        if len(runs) == 1:
            trace |= {"type": "bar", "width": 0.9 * step}
        else:
            dash = DASHES[index // COLOURS % len(DASHES)]
            trace |= {"type": "scatter", "mode": "lines", "line": {"width": 2, "dash": dash, "shape": "hvh"}}
        traces.append(trace)
    layout = {"yaxis": {**_PERCENT, "rangemode": "tozero"}}
    return Chart("staleness", "Staleness", traces, layout, over="staleness of the gradient, in updates")


def _logarithmic(shown: Sequence[Numbers]) -> bool:
    """Whether the curves are positive and span much."""
    low, high = _limits(shown)
    return low > 0 and high > _SPAN * low


def _axis(shown: Sequence[Numbers], measured: Sequence[Numbers]) -> dict[str, Any]:
    """A linear y axis in which single outliers do not press the curves flat."""
    everything = np.concatenate([values[np.isfinite(values)] for values in measured]) if measured else np.empty(0)
    if not len(everything):
        return {}
    low, high = _limits(shown)
    low, high = min(low, np.percentile(everything, 0.5)), max(high, np.percentile(everything, 99.5))
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return {"yaxis": {"range": rounded([low - margin, high + margin])}}


def _limits(shown: Sequence[Numbers]) -> tuple[float, float]:
    known = [values[np.isfinite(values)] for values in shown]
    joined = np.concatenate(known) if known else np.empty(0)
    return (float(joined.min()), float(joined.max())) if len(joined) else (0.0, 0.0)
