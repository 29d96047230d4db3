"""A report as a still picture: one panel a quantity, for one run or for several over each other."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from launch.history import History, Numbers, smoothed
from launch.report.smoothing import smoothing

# Okabe and Ito's palette: told apart with any colour vision, and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TARGET, TOTAL, ALGORITHMIC = "#0072B2", "#CC79A7", "#E69F00"
BESIDE = ("#009E73", "#D55E00", "#56B4E9")
_DASHES = ("-", "--", ":", "-.")
_POINTS = 1200
_NAMED = 5
_LONGEST = 26
_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e6ea",
    "axes.edgecolor": "#8a8f98",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": "#444a54",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.7,
    "svg.fonttype": "none",
    "svg.hashsalt": "yellowfin-ps",
}
Panel: TypeAlias = Callable[[Axes, Sequence[History]], None]


def draw_loss(axes: Axes, runs: Sequence[History]) -> None:
    """Training loss, smoothed; of a single run also the loss of every update, and where workers were lost."""
    curves = []
    for index, run in enumerate(runs):
        loss = run.column("loss")
        if len(runs) == 1:
            _shade(axes, run.updates, loss, COLOURS[0])
        curves.append(smoothed(loss, smoothing(runs).usual))
        _line(axes, run.updates, curves[-1], index, run.name if len(runs) > 1 else "smoothed")
    if len(runs) == 1:
        _mark(axes, runs[0])
    _fit(axes, curves, [run.column("loss") for run in runs])
    _finish(axes, "Training loss", f"smoothed over {smoothing(runs).usual} updates", runs)


def draw_loss_in_time(axes: Axes, runs: Sequence[History]) -> None:
    """Smoothed training loss against seconds: the same curves as a stop watch sees them."""
    curves = []
    for index, run in enumerate(runs):
        curves.append(smoothed(run.column("loss"), smoothing(runs).usual))
        _line(axes, run.column("seconds"), curves[-1], index, run.name)
    _fit(axes, curves, curves)
    _finish(axes, "Training loss in time", "", runs, "seconds")


def draw_momentum(axes: Axes, runs: Sequence[History]) -> None:
    """Momentum: the target, the total one measured, the algorithmic one applied, and what other estimators say."""
    kinds: dict[str, tuple[str, str, Any]] = {
        "target_momentum": ("target", TARGET, ":"),
        "total_momentum": ("total, measured", TOTAL, "-"),
        "momentum": ("algorithmic", ALGORITHMIC, "--"),
    }
    beside = {column: name for run in runs for column, name in run.beside.items()}
    for number, (column, name) in enumerate(beside.items()):
        kinds[column] = (f"total by {name}", BESIDE[number % len(BESIDE)], "-.")
    for index, run in enumerate(runs):
        for column, (_, own, dash) in kinds.items():
            values = run.column(column)
            if column.startswith("total_momentum"):
                values = smoothed(values, smoothing(runs).usual)
            x, y = _thinned(run.updates, values)
            axes.plot(x, y, color=own if len(runs) == 1 else COLOURS[index % len(COLOURS)], linestyle=dash)
    axes.axhline(0, color="#8a8f98", linewidth=0.8)
    _finish(axes, "Momentum", "", [])
    handles = [
        Line2D([], [], color=own if len(runs) == 1 else "#444a54", linestyle=dash, label=label)
        for label, own, dash in kinds.values()
    ]
    axes.legend(handles=handles, loc="best")


def draw_learning_rate(axes: Axes, runs: Sequence[History]) -> None:
    """The learning rate of every update."""
    curves = [run.column("learning_rate") for run in runs]
    for index, (run, curve) in enumerate(zip(runs, curves, strict=True)):
        _line(axes, run.updates, curve, index, run.name)
    _fit(axes, curves, curves)
    _finish(axes, "Learning rate", "", runs)


def draw_staleness(axes: Axes, runs: Sequence[History]) -> None:
    """How stale the gradients were: the share of updates at each staleness."""
    for index, run in enumerate(runs):
        values = run.column("staleness")
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        step = max(1, int(np.ceil((values.max() + 1) / 60)))
        edges = np.arange(0, values.max() + step + 1, step) - 0.5
        share, _ = np.histogram(values, bins=edges)
        colour, label = COLOURS[index % len(COLOURS)], f"{_short(run.name)}, mean {values.mean():.1f}"
        percent = 100 * share / len(values)
        if len(runs) == 1:
            axes.stairs(percent, edges, fill=True, color=colour, alpha=0.85, label=f"mean {values.mean():.1f}")
            axes.axvline(values.mean(), color="#444a54", linestyle="--", linewidth=1.2)
        else:
            axes.stairs(percent, edges, color=colour, linewidth=1.7, label=label)
    _finish(axes, "Staleness", "", runs, "updates between a gradient's version and its use")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    if axes.get_legend_handles_labels()[0]:
        axes.set_ylim(top=axes.get_ylim()[1] * (1.1 + 0.1 * min(len(runs), _NAMED)))
        _finish_legend(axes, runs)


def draw_evaluation(axes: Axes, runs: Sequence[History]) -> None:
    """What the evaluator found: accuracy where a run has it, else the first number it reported."""
    names = {name: None for run in runs for name in run.evaluated}
    name = "accuracy" if "accuracy" in names else next(iter(names), "")
    for index, run in enumerate(runs):
        x, _, y = run.evaluation(name)
        style: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(x) < 80 else {}
        _line(axes, x, y, index, run.name, **style)
    _finish(axes, f"Evaluation: {name}" if name else "Evaluation", "", runs)
    if name == "accuracy":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


PANELS: dict[str, Panel] = {
    "Training loss over updates": draw_loss,
    "Target, total and algorithmic momentum over updates": draw_momentum,
    "Learning rate over updates": draw_learning_rate,
    "Histogram of staleness": draw_staleness,
    "Evaluation over updates": draw_evaluation,
    "Training loss over seconds": draw_loss_in_time,
}
"""What each panel shows -> how it is drawn."""


def panel_svg(panel: Panel, runs: Sequence[History]) -> str:
    """One panel as a standalone SVG, with its words as text."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.0, 3.3), layout="constrained")
        panel(figure.add_subplot(), runs)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def sheet_png(runs: Sequence[History]) -> bytes:
    """All panels on one picture."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(13.5, 7.2), layout="constrained", dpi=120)
        FigureCanvasAgg(figure)
        for axes, panel in zip(figure.subplots(2, 3).flat, PANELS.values(), strict=True):
            panel(axes, runs)
        if len(runs) > _NAMED:
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=4)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _line(axes: Axes, x: Numbers, y: Numbers, index: int, label: str, **style: Any) -> None:
    dash = _DASHES[index // len(COLOURS) % len(_DASHES)]
    x, y = _thinned(x, y)
    axes.plot(x, y, color=COLOURS[index % len(COLOURS)], linestyle=dash, label=_short(label), **style)


def _thinned(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    step = max(1, len(x) // _POINTS)
    return x[::step], y[::step]


def _shade(axes: Axes, x: Numbers, y: Numbers, colour: str) -> None:
    """Every value, faint; the range of neighbours where there are more values than points."""
    step = max(1, len(x) // _POINTS)
    if step == 1:
        axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.7)
        return
    count = len(x) // step
    blocks = y[: count * step].reshape(count, step)
    blocks = np.where(np.isfinite(blocks), blocks, blocks[:, :1])
    axes.fill_between(
        x[: count * step : step], blocks.min(axis=1), blocks.max(axis=1), color=colour, alpha=0.2, linewidth=0
    )


def _mark(axes: Axes, run: History) -> None:
    for kind, colour in (("lost", "#D55E00"), ("resumed", "#009E73")):
        for number, update in enumerate(run.marks(kind)):
            label = f"worker {kind}" if kind == "lost" else "server resumed"
            axes.axvline(update, color=colour, linewidth=1, alpha=0.6, label=None if number else label)


def _fit(axes: Axes, curves: Sequence[Numbers], values: Sequence[Numbers]) -> None:
    """A logarithmic axis when the curves span much; never let single outliers press the curves flat."""
    known = [curve[np.isfinite(curve)] for curve in curves]
    joined = np.concatenate(known) if known else np.empty(0)
    if not len(joined):
        return
    everything = np.concatenate([value[np.isfinite(value)] for value in values])
    if joined.min() > 0 and joined.max() > 30 * joined.min():
        axes.set_yscale("log")
        return
    low, high = min(joined.min(), np.percentile(everything, 0.5)), max(joined.max(), np.percentile(everything, 99.5))
    margin = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    axes.set_ylim(low - margin, high + margin)


def _finish(axes: Axes, title: str, note: str, runs: Sequence[History], x: str = "updates") -> None:
    axes.set_title(title)
    axes.set_xlabel(f"{x}   ({note})" if note else x)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if not axes.has_data():
        axes.text(0.5, 0.5, "nothing measured", ha="center", va="center", transform=axes.transAxes, color="#8a8f98")
    if len(runs) > 1 or len(axes.get_legend_handles_labels()[0]) > 1:
        _finish_legend(axes, runs)


def _finish_legend(axes: Axes, runs: Sequence[History]) -> None:
    """Names beside the curves, while they are few; the page's table shows every run's colour."""
    if len(runs) <= _NAMED:
        axes.legend(loc="best")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[-_LONGEST // 2 + 1 :]}"
