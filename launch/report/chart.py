"""A chart of a report: a figure for plotly.js, thinned to what a screen can show, and the page's data as one text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import orjson

from launch.history import Numbers
from launch.numbers import harmless

POINTS = 2000
_LEAST_POINTS = 400
_FULL_CURVES = 5
_DIGITS = 6
_WHOLE = 2**53


@dataclass(frozen=True)
class Key:
    """One kind of curve in a chart, as its legend shows it.   colour: its number, None where each run has its own."""

    tag: str
    label: str
    dash: str
    colour: int | None = None


@dataclass(frozen=True)
class Chart:
    """Traces and layout as plotly.js takes them, without colours: those are the reader's, light or dark.

    A trace's `meta` says what the page needs to know: `colour`, number of its colour; `tags`, by which it is hidden;
    `window`, the smoothing it belongs to (absent: any); `seconds`, its x over seconds (absent: x stays as it is).
    log: whether the chart opens with a logarithmic axis, None where that makes no sense.
    over: what the x axis shows, "" for updates or seconds, as the reader chooses.
    """

    key: str
    title: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    log: bool | None = None
    over: str = ""
    keys: tuple[Key, ...] = ()
    wide: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing was measured that it could show."""
        return not self.traces


def points(runs: int) -> int:
    """How many points a curve may have when so many runs share a page."""
    return max(_LEAST_POINTS, min(POINTS, POINTS * _FULL_CURVES // max(runs, 1)))


def thinned(values: Numbers, most: int) -> Any:
    """Indices of the values to draw: the first, the last, and lowest and highest of equal stretches; at most `most`.

    Values that were not measured are left out.
    """
    known = np.flatnonzero(np.isfinite(values))
    if len(known) <= most:
        return known
    stretches = (most - 2) // 2
    edges = np.linspace(0, len(known), stretches + 1).astype(int)
    columns = np.minimum(edges[:-1, None] + np.arange(np.diff(edges).max()), edges[1:, None] - 1)
    blocks = values[known[columns]]
    rows = np.arange(stretches)
    low, high = columns[rows, blocks.argmin(axis=1)], columns[rows, blocks.argmax(axis=1)]
    return known[np.unique(np.concatenate([[0, len(known) - 1], low, high]))]


def rounded(values: Any) -> list[Any]:
    """Numbers for the page: six significant digits, whole ones whole, null for what is not finite."""
    return [_rounded(value) for value in np.asarray(values, dtype=np.float64).tolist()]


def _rounded(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if abs(value) < _WHOLE and value.is_integer() else float(f"{value:.{_DIGITS}g}")


def words(text: Any) -> str:
    """Text of a run for plotly.js, which would read mark-up in it."""
    return escape(harmless(str(text)), quote=False)


def payload(charts: Sequence[Chart], names: Sequence[str], window: int) -> str:
    """Everything the page draws from, as JSON that cannot end the element it stands in."""
    shown = [
        {
            "key": chart.key,
            "title": chart.title,
            "traces": chart.traces,
            "layout": chart.layout,
            "log": chart.log,
            "over": chart.over,
        }
        for chart in charts
        if not chart.empty
    ]
    text = orjson.dumps({"runs": [harmless(name) for name in names], "window": window, "charts": shown}).decode()
    return text.replace("<", "\\u003c")
