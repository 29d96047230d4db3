"""The house style of the laboratory's pictures: matplotlib without a display, colours anyone can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import ArrayLike

# Okabe and Ito's palette: told apart with any colour vision, and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
GREY = "#8a8f98"
_GRID = "#e4e6ea"
_DPI = 110
_POINTS = 1500

Scale = Literal["linear", "log", "symlog"]


def axes(
    title: str,
    xlabel: str,
    ylabel: str,
    *,
    xscale: Scale = "linear",
    yscale: Scale = "linear",
    size: tuple[float, float] = (7.6, 4.8),
) -> Axes:
    """A figure with one panel: its axes, in the house style; `axes.figure` is the figure. size: inches."""
    (panel,) = panels(1, size=size)
    return labelled(panel, title, xlabel, ylabel, xscale=xscale, yscale=yscale)


def panels(count: int, columns: int = 1, size: tuple[float, float] | None = None) -> list[Axes]:
    """A figure with `count` panels in rows of `columns`, to be given their words by `labelled`. size: inches, whole."""
    rows = -(-count // columns)
    figure = Figure(figsize=size or (5.6 * columns, 4.0 * rows), layout="constrained", dpi=_DPI)
    FigureCanvasAgg(figure)
    return [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def labelled(
    panel: Axes, title: str, xlabel: str, ylabel: str, *, xscale: Scale = "linear", yscale: Scale = "linear"
) -> Axes:
    """Give a panel its words, scales and the house style; returns it."""
    panel.set_title(title, fontsize=12, fontweight="bold", loc="left")
    panel.set_xlabel(xlabel, fontsize=11)
    panel.set_ylabel(ylabel, fontsize=11)
    panel.set_xscale(xscale)
    panel.set_yscale(yscale)
    panel.tick_params(labelsize=10, color=GREY)
    panel.grid(True, color=_GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        panel.spines[side].set_color(GREY)
    return panel


def style(index: int) -> dict[str, Any]:
    """Colour and dash of the index-th curve."""
    dash = DASHES[index // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dash, "linewidth": 1.8}


def curve(panel: Axes, x: ArrayLike, y: ArrayLike, label: str | None, index: int, **own: Any) -> None:
    """Draw a line in the index-th colour; long ones are thinned to what the eye can see."""
    step = max(1, np.size(x) // _POINTS)
    panel.plot(np.asarray(x)[::step], np.asarray(y)[::step], label=label, **{**style(index), **own})


def band(panel: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, index: int) -> None:
    """Shade what lies between two curves in the index-th colour: the spread over seeds."""
    step = max(1, np.size(x) // _POINTS)
    at, below, above = (np.asarray(values)[::step] for values in (x, low, high))
    panel.fill_between(at, below, above, color=COLOURS[index % len(COLOURS)], alpha=0.18, linewidth=0)


def whole_ticks(axis: Axis) -> None:
    """Tick a logarithmic axis at 1, 2 and 5 times the powers of ten, in plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def legend(panel: Axes, **own: Any) -> None:
    """Names beside the curves; none when there is only one."""
    if len(panel.get_legend_handles_labels()[0]) > 1:
        panel.legend(**{"frameon": False, "fontsize": 10, **own})


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; the same figure gives the same bytes."""
    figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})
