"""Who pushed when: a run's workers in time, each push by its staleness, and who joined, left, failed or was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launch.history import History, Numbers
from launch.report.chart import POINTS, Chart, rounded, words

_COLUMNS = (10, 160)
_PUSHES = 8  # in a cell, on average: else a worker's own rhythm shows as holes
_BANDS = 48
_MOST_MARKS = 400
_SERVER = -1  # the lane of the server and of members that are no workers
_TICKS = 8
# Bright from end to end, so that both ends can be seen on white and on black, with any colour vision.
_SCALE = [[0.0, "#56B4E9"], [0.5, "#E69F00"], [1.0, "#C0392B"]]
_SYMBOLS = {
    "joined": ("triangle-right", "joined"),
    "left": ("triangle-left-open", "left"),
    "failed": ("diamond", "failed"),
    "lost": ("star", "lost"),
    "late": ("diamond-open", "said no goodbye"),
    "resumed": ("hexagram", "server resumed"),
}


def timeline(run: History, key: str) -> Chart:
    """One point a push, or, of a long run, one cell for the pushes of a worker in a stretch of updates."""
    refused = np.array([code is not None for code in run.pushes.refused], dtype=bool)
    applied = ~refused & np.isfinite(run.pushes.worker) & np.isfinite(run.pushes.staleness)
    traces = [*_applied(run, applied), *_refused(run, refused), *_events(run)]
    lanes = [0, *(lane for trace in traces for lane in trace["y"] if lane is not None)]
    lowest, ticks = max(lanes), list(range(0, int(max(lanes)) + 1, 1 + int(max(lanes)) // _TICKS))
    staleness = run.pushes.staleness[applied]
    layout: dict[str, Any] = {
        "height": 150 + 11 * min(max(int(lowest) + 1, 6), _BANDS),
        "hovermode": "closest",
        "yaxis": {
            "range": [lowest + 0.7, min(lanes) - 0.7],
            "tickvals": [_SERVER, *ticks],
            "ticktext": ["others", *map(str, ticks)],
            "title": {"text": "worker"},
        },
        "coloraxis": {"colorscale": _SCALE, "cmin": 0, "cmax": float(max(1.0, staleness.max(initial=1.0)))},
    }
    return Chart(key, "Pushes of each worker, by staleness", traces, layout, wide=True)


def _applied(run: History, applied: NDArray[np.bool_]) -> list[dict[str, Any]]:
    pushes = run.pushes
    if not applied.any():
        return []
    if applied.sum() > POINTS or len(np.unique(pushes.worker[applied])) > _BANDS:
        return [_cells(run, applied)]
    staleness = rounded(pushes.staleness[applied])
    marker = {"color": staleness, "coloraxis": "coloraxis", "size": 7, "symbol": "square"}
    hover = "worker %{y}, %{x}<br>staleness %{marker.color}<extra></extra>"
    return [_marks(run, "push", pushes.update[applied], pushes.worker[applied], marker, hover)]


def _cells(run: History, applied: NDArray[np.bool_]) -> dict[str, Any]:
    """Mean staleness over stretches of updates and, where workers are many, bands of them."""
    update, worker = run.pushes.update[applied], run.pushes.worker[applied]
    staleness = run.pushes.staleness[applied]
    band = int(np.ceil((worker.max() + 1) / _BANDS))
    lanes = np.arange(0, worker.max() + 1 + band, band)
    columns = int(np.clip(len(update) // (_PUSHES * (len(lanes) - 1)), *_COLUMNS))
    edges = np.linspace(update.min(), update.max() + 1, min(columns, int(np.ptp(update)) + 1) + 1)
    counts, _, _ = np.histogram2d(worker, update, bins=[lanes, edges])
    sums, _, _ = np.histogram2d(worker, update, bins=[lanes, edges], weights=staleness)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    who = "worker %{y}" if band == 1 else f"workers %{{y}} to %{{y}} + {band - 1}"
    return {
        "type": "heatmap",
        "name": "mean staleness",
        "x": rounded(edges),
        "y": rounded(lanes - 0.5),
        "z": [rounded(line) for line in mean],
        "customdata": counts.astype(int).tolist(),
        "coloraxis": "coloraxis",
        "hoverongaps": False,
        "hovertemplate": f"{who}, %{{x}}<br>mean staleness %{{z:.1f}}, pushes %{{customdata}}<extra></extra>",
        "meta": {"colour": 0, "tags": [], "seconds": rounded(run.seconds_at(edges))},
    }


def _refused(run: History, refused: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Refused pushes: from the arrivals where these tell of them, else from the events."""
    marker = {"symbol": "x-thin", "size": 9, "line": {"width": 2}}
    hover = "worker %{y}, %{x}<br>refused: %{text}<extra></extra>"
    if run.knows_refused:
        chosen = _some(np.flatnonzero(refused))
        if not len(chosen):
            return []
        text = [str(run.pushes.refused[index]) for index in chosen]
        return [_marks(run, "refused", run.pushes.update[chosen], run.pushes.worker[chosen], marker, hover, text)]
    return _of_kind(run, "rejected", marker, "refused", hover)


def _events(run: History) -> list[dict[str, Any]]:
    hover = "%{x}: %{text}<extra></extra>"
    traces = []
    for kind, (symbol, name) in _SYMBOLS.items():
        traces += _of_kind(run, kind, {"symbol": symbol, "size": 11, "line": {"width": 1.5}}, name, hover)
    return traces


def _of_kind(run: History, kind: str, marker: dict[str, Any], name: str, hover: str) -> list[dict[str, Any]]:
    found = [event for event in run.events if event.get("kind") == kind and _is_number(event.get("seconds"))]
    found = [found[index] for index in _some(np.arange(len(found)))]
    if not found:
        return []
    seconds = np.array([float(event["seconds"]) for event in found])
    lane = [float(event["worker"]) if _is_number(event.get("worker")) else _SERVER for event in found]
    text = [words(event.get("text", "")) for event in found]
    trace = _marks(run, name, run.update_at(seconds), np.array(lane), marker, hover, text)
    trace["meta"]["seconds"] = rounded(seconds)
    return [trace]


def _marks(
    run: History,
    name: str,
    update: Numbers,
    lane: Numbers,
    marker: dict[str, Any],
    hover: str,
    text: Sequence[str] | None = None,
) -> dict[str, Any]:
    trace: dict[str, Any] = {"type": "scatter", "mode": "markers", "name": name, "marker": marker}
    trace |= {"x": rounded(update), "y": rounded(lane), "hovertemplate": hover}
    trace["meta"] = {"colour": None, "tags": [], "seconds": rounded(run.seconds_at(update))}
    return trace if text is None else trace | {"text": list(text)}


def _some(indices: NDArray[np.intp]) -> NDArray[np.intp]:
    """At most a few hundred of them, evenly."""
    if len(indices) <= _MOST_MARKS:
        return indices
    return np.asarray(indices[np.linspace(0, len(indices) - 1, _MOST_MARKS).astype(int)], dtype=np.intp)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
