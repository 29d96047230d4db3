"""Writes a report: the page, the same curves as a picture and, when asked for, the numbers behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tomlkit

from launch.history import History, load_histories
from launch.report import page
from launch.report.chart import Chart, payload, points
from launch.report.curves import curves
from launch.report.export import write_csv
from launch.report.pictures import PANELS, panel_svg, sheet_png
from launch.report.smoothing import smoothing
from launch.report.tables import comparison, differences, events, summary_shown
from launch.report.timeline import timeline
from psserver.errors import ConfigurationError

_THINNED = (
    "Curves of more than {points:,} points are drawn by the lowest and the highest value of each stretch; the run's "
    "own files, and yfps report --csv, have every value."
)


def report(run_dirs: Sequence[Path], out: Path | None = None, csv: bool = False) -> Path:
    """Write the page, and a PNG of the same name beside it; the page's path.

    out: default `report.html` in the first run's folder.   csv: also write every value, as NAME.csv (a row an update),
    NAME-pushes.csv and NAME-evaluations.csv. Raises ConfigurationError for a folder that holds no run.
    """
    if not run_dirs:
        raise ConfigurationError("expected at least one run's folder, got none")
    runs = load_histories(run_dirs)
    target = (run_dirs[0] / "report.html") if out is None else out
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".png").write_bytes(sheet_png(runs))
    target.write_text(_document(runs), encoding="utf-8")
    if csv:
        write_csv(runs, target)
    return target


def _document(runs: Sequence[History]) -> str:
    several = len(runs) > 1
    chosen = smoothing(runs)
    shared = curves(runs, chosen)
    times = [timeline(run, f"timeline-{index}") for index, run in enumerate(runs)]
    parts = [] if several else [page.numbers(summary_shown(runs[0]))]
    parts.append(page.heading("Curves"))
    parts.append(page.pictures({words: panel_svg(panel, runs) for words, panel in PANELS.items()}))
    parts.append(page.controls(chosen, [run.name for run in runs] if several else []))
    parts.append(page.charts(shared if several else [*shared, times[0]]))
    if max(len(run.rows) for run in runs) > points(len(runs)):
        parts.append(page.note(_THINNED.format(points=points(len(runs)))))
    parts += _compared(runs, times) if several else _details(runs[0])
    data = payload([*shared, *times], [run.name for run in runs], chosen.usual)
    title = f"{len(runs)} runs" if several else runs[0].name
    return page.page(title, "" if several else _subtitle(runs[0]), parts, data)


def _compared(runs: Sequence[History], times: Sequence[Chart]) -> list[str]:
    parts = [page.heading("Numbers"), comparison(runs), page.heading("What differs in their configurations")]
    rows = [[key, *values] for key, values in differences(runs).items()] or [["nothing", *[""] * len(runs)]]
    parts.append(page.table(["key", *[run.name for run in runs]], rows, runs="columns"))
    parts.append(page.heading("Each run"))
    for run, time in zip(runs, times, strict=True):
        body = [page.note(_subtitle(run)), page.numbers(summary_shown(run)), page.charts([time]), *_details(run)]
        parts.append(page.folded(run.name, "".join(body)))
    return parts


def _details(run: History) -> list[str]:
    parts = [page.folded(f"Events ({len(run.events)})", events(run))] if run.events else []
    return [*parts, page.folded("Configuration", page.preformatted(tomlkit.dumps(run.configuration)))]


def _subtitle(run: History) -> str:
    task = run.configuration.get("task", {}).get("function", "")
    state = "" if run.finished else "   ·   unfinished: this is what it has written so far"
    name = run.configuration.get("name", "")
    return "   ·   ".join(str(part) for part in (name, task, run.path) if part) + state
