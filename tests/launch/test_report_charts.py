"""The charts of a report: what is drawn of what was measured, and that plotly accepts it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from launch.history import History, load_histories, load_history
from launch.report import report
from launch.report.chart import POINTS, Chart, payload, points, rounded, thinned
from launch.report.curves import curves
from launch.report.smoothing import smoothing
from launch.report.timeline import timeline
from tests.launch.records import arrival, row, write_run


def drawn(*runs: History) -> dict[str, Chart]:
    charts = [*curves(runs, smoothing(runs)), *(timeline(run, f"timeline-{n}") for n, run in enumerate(runs))]
    for chart in charts:
        go.Figure({"data": chart.traces, "layout": chart.layout})  # refuses what plotly does not know
    return {chart.key: chart for chart in charts}


def one(tmp_path: Path, rows: list[dict[str, Any]], **more: Any) -> History:
    return load_history(write_run(tmp_path / "run", rows, **more))


@pytest.mark.parametrize("length", [1, 3, 1999, 2000, 2001, 40_000])
def test_a_thinned_curve_keeps_its_ends_its_peaks_and_few_points(length: int) -> None:
    values = np.random.default_rng(length).normal(size=length)
    chosen = thinned(values, 2000)
    assert len(chosen) == length if length <= 2000 else 1000 < len(chosen) <= 2000
    assert (chosen[0], chosen[-1]) == (0, length - 1)
    assert np.all(np.diff(chosen) > 0)
    assert {values.argmin(), values.argmax()} <= set(chosen.tolist())


def test_what_was_not_measured_is_left_out_of_a_curve() -> None:
    assert thinned(np.array([np.nan, 1.0, np.inf, 2.0]), 2000).tolist() == [1, 3]


def test_numbers_of_any_size_become_json() -> None:
    assert rounded([1.0, 0.123456789, 1e300, -np.inf, np.nan]) == [1, 0.123457, 1e300, None, None]


def test_smoothing_offers_windows_that_fit_the_run(tmp_path: Path) -> None:
    run = one(tmp_path, [row(n) for n in range(1, 501)])
    assert (smoothing([run]).usual, smoothing([run]).choices) == (10, (1, 2, 10, 50))


def test_every_kind_of_run_makes_figures_that_plotly_accepts(tmp_path: Path) -> None:
    write_run(tmp_path / "empty", [], events=(), evaluations=())
    write_run(tmp_path / "single", [row(1)])
    write_run(tmp_path / "nulls", [row(n, loss=None, worker=None, total_momentum=None) for n in range(1, 50)])
    write_run(tmp_path / "diverged", [row(n, loss=10.0 ** (6 * n), staleness=n) for n in range(1, 51)])
    runs = load_histories(sorted(tmp_path.iterdir()))
    assert [run.name for run in runs] == ["diverged", "empty", "nulls", "single"]
    for run in runs:
        drawn(run)
    assert drawn(*runs)["loss"].log
    assert all(chart.empty for chart in drawn(runs[1]).values())
    assert json.loads(payload(list(drawn(*runs).values()), ["<b>"], 1))["runs"] == ["<b>"]


def test_twenty_runs_share_the_points_of_five(tmp_path: Path) -> None:
    assert (points(1), points(5), points(20)) == (POINTS, POINTS, POINTS // 4)
    write_run(tmp_path / "run", [row(n) for n in range(1, 1001)])
    charts = drawn(*load_histories([tmp_path / "run"] * 20))
    assert len(charts["learning-rate"].traces) == 20
    assert max(len(trace["x"]) for trace in charts["loss"].traces) <= POINTS // 4


def test_momentum_is_shown_three_ways(tmp_path: Path) -> None:
    chart = drawn(one(tmp_path, [row(n) for n in range(1, 20)]))["momentum"]
    last = {trace["name"]: trace["y"][-1] for trace in chart.traces}
    assert last == {"target": 0.9, "total, measured": 0.8, "algorithmic": -0.2}


def test_estimators_beside_the_one_in_use_have_lines_and_keys_of_their_own(tmp_path: Path) -> None:
    rows = [row(n, total_momentum_lag=0.7, total_momentum_regression=None if n < 90 else 0.6) for n in range(1, 5001)]
    run = one(tmp_path, rows)
    chart = drawn(run)["momentum"]
    assert [key.label for key in chart.keys][3:] == ["total by lag", "total by regression"]
    assert len({key.colour for key in chart.keys}) == 5
    lines = [trace for trace in chart.traces if trace["name"] == "total by regression"]
    assert [trace["meta"]["window"] for trace in lines] == [1, 20, 100, 500]
    assert all((trace["x"][0], trace["y"][-1], len(trace["x"]) <= POINTS) == (90, 0.6, True) for trace in lines)
    plain = load_history(write_run(tmp_path / "plain", [row(1), row(2)]))
    both = drawn(run, plain)["momentum"]
    assert {trace["name"] for trace in both.traces if "plain" in trace["name"]} == {
        "plain, target", "plain, total, measured", "plain, algorithmic",
    }  # fmt: skip
    page = report([run.path, plain.path], tmp_path / "both.html", csv=True)
    assert "total by regression</button>" in page.read_text()
    with (tmp_path / "both.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["total_momentum_lag"], "beside" in first) == ("0.7", False)


def test_the_timeline_tells_pushes_refusals_and_losses_apart(tmp_path: Path) -> None:
    arrivals = [arrival(n) for n in range(1, 40)] + [arrival(39, "stale")]
    run = one(tmp_path, [row(n) for n in range(1, 41)], arrivals=arrivals)
    traces = {trace["name"]: trace for trace in drawn(run)["timeline-0"].traces}
    assert list(traces) == ["push", "refused", "lost"]
    assert traces["push"]["marker"]["color"] == [min(n - 1, 15) for n in range(1, 40)]
    assert (traces["refused"]["x"], traces["refused"]["y"], traces["refused"]["text"]) == ([39], [7], ["stale"])
    assert (traces["lost"]["meta"]["seconds"], traces["lost"]["y"]) == ([1], [3])
    assert "&lt;b&gt; killed" in traces["lost"]["text"][0]


def test_runs_from_before_refusals_were_recorded_show_them_by_their_events(tmp_path: Path) -> None:
    old = [{key: value for key, value in arrival(n).items() if key not in ("fresh", "refused")} for n in range(1, 40)]
    events = [{"seconds": 0.3, "kind": "rejected", "worker": 2, "text": "worker 2, step 1: not finite"}]
    run = one(tmp_path, [row(n) for n in range(1, 40)], arrivals=old, events=events)
    traces = {trace["name"]: trace for trace in drawn(run)["timeline-0"].traces}
    assert len(traces["push"]["x"]) == 39
    assert (traces["refused"]["x"], traces["refused"]["y"]) == ([10], [2])


def test_a_long_run_shows_the_mean_staleness_of_stretches(tmp_path: Path) -> None:
    rows = [row(n, worker=n % 200, staleness=199, version=n - 200) for n in range(1, 4001)]
    cells = drawn(one(tmp_path, rows))["timeline-0"].traces[0]
    assert (cells["type"], len(cells["z"])) == ("heatmap", 40)
    assert {value for line in cells["z"] for value in line} == {199}
    assert sum(sum(line) for line in cells["customdata"]) == 4000


def test_the_numbers_come_as_tidy_tables(tmp_path: Path) -> None:
    arrivals = [arrival(1), arrival(2), arrival(2, "not-finite")]
    runs = [write_run(tmp_path / name, [row(1), row(2, loss=None)], arrivals=arrivals) for name in "ab"]
    report(runs, tmp_path / "both.html", csv=True)
    tables = {}
    for name in ("both", "both-pushes", "both-evaluations"):
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            tables[name] = list(csv.DictReader(file))
    assert [(one["run"], one["update"], one["loss"][:4]) for one in tables["both"]] == [
        ("a", "1", "2.09"), ("a", "2", ""), ("b", "1", "2.09"), ("b", "2", ""),
    ]  # fmt: skip
    assert [(one["staleness"], one["refused"]) for one in tables["both-pushes"]][:3] == [
        ("0", ""), ("1", ""), ("2", "not-finite"),
    ]  # fmt: skip
    assert tables["both-evaluations"][0] == {
        "run": "a", "update": "100", "seconds": "1.0", "name": "loss", "value": "0.01",
    }  # fmt: skip
