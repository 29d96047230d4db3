"""`yfps reproduce`: findings on paper, names, missing data, and one page over all."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import orjson
import pytest

from launch import load_experiment
from launch.lab import finding as frame
from launch.lab.finding import Finding, Lab, Reproduction, Table, markdown, write_finding
from launch.lab.picture import axes, curve, legend
from launch.lab.points import Point
from launch.lab.reproduce import REPRODUCTIONS, reproduce
from psserver.errors import ConfigurationError, DataError


def finding(name: str = "lines", agrees: bool | None = True) -> Finding:
    panel = axes("A line", "x", "y", yscale="log")
    curve(panel, np.arange(1, 5000), np.arange(1, 5000), "one", 0)
    curve(panel, [1, 2], [3, 4], "two", 8)
    legend(panel)
    table = Table(["method", "loss", "fine"], [["a|b", 0.123456, True], ["c", math.nan, False]])
    data = {"points": Table(["x", "y"], [[1, np.float64(0.1)], [2, math.nan]])}
    return Finding(name, "Lines, drawn", "Are they?", agrees, "They are.", table, data, panel.figure, ["One seed."])


def fake(name: str, run: object, **more: object) -> Reproduction:
    return Reproduction(name, f"What about {name}?", run, lambda scale: f"{scale}: a second", **more)  # type: ignore[arg-type]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(lab: Lab) -> Finding:
        raise DataError("no CIFAR here")

    def works(lab: Lab) -> Finding:
        return finding()

    ours = {"absent": fake("absent", missing, needs=("cifar10",)), "lines": fake("lines", works)}
    for known in list(REPRODUCTIONS):
        monkeypatch.delitem(REPRODUCTIONS, known)
    for name, reproduction in ours.items():
        monkeypatch.setitem(REPRODUCTIONS, name, reproduction)


def test_a_finding_is_written_as_page_picture_tables_and_record(tmp_path: Path) -> None:
    folder = write_finding(Lab(tmp_path), finding(), {"Hardware": "an abacus"})
    assert sorted(path.name for path in folder.iterdir()) == ["finding.json", "lines.md", "lines.png", "points.csv"]
    text = (folder / "lines.md").read_text()
    for words in ("# Lines, drawn", "**Agrees.** They are.", "![Lines, drawn](lines.png)", "an abacus", "One seed."):
        assert words in text
    assert (folder / "lines.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "points.csv").open() as file:
        assert list(csv.reader(file)) == [["x", "y"], ["1", "0.1"], ["2", ""]]
    written = orjson.loads((folder / "finding.json").read_bytes())
    assert written["rows"] == [["a|b", 0.123456, True], ["c", None, False]]


def test_the_same_picture_has_the_same_bytes(tmp_path: Path) -> None:
    folders = [write_finding(Lab(tmp_path / name), finding()) for name in "ab"]
    assert (folders[0] / "lines.png").read_bytes() == (folders[1] / "lines.png").read_bytes()


def test_a_table_in_markdown_aligns_numbers_and_keeps_its_columns() -> None:
    lines = markdown(Table(["name", "n"], [["a|b", 1234567], ["c", None], ["d", -0.5]])).splitlines()
    assert lines == ["| name | n |", "| --- | ---: |", "| a\\|b | 1,234,567 |", "| c | – |", "| d | −0.5 |"]


@pytest.mark.usefixtures("two")
def test_all_leaves_out_what_has_no_data_and_says_so(tmp_path: Path) -> None:
    lines: list[str] = []
    assert reproduce("all", Lab(tmp_path, show=lines.append)) == ["lines"]
    assert "absent is left out: no CIFAR here" in lines
    text = (tmp_path / "results.md").read_text()
    assert "| [lines](#lines-drawn) | small | yes | They are. |" in text
    assert "## Lines, drawn" in text
    assert "![Lines, drawn](lines/lines.png)" in text
    assert "yfps reproduce lines --scale small" in text


@pytest.mark.usefixtures("two")
def test_by_name_missing_data_is_an_error_and_a_misspelt_name_is_mended(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no CIFAR"):
        reproduce("absent", Lab(tmp_path, show=lambda line: None))
    with pytest.raises(ConfigurationError, match="did you mean 'lines'"):
        reproduce("linse", Lab(tmp_path, show=lambda line: None))


def test_the_papers_scale_says_what_it_costs_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(lab: Lab) -> Finding:
        said.append("begun")
        return finding()

    said: list[str] = []
    work = [(load_experiment("quadratic"), 7200)]
    monkeypatch.setitem(REPRODUCTIONS, "lines", fake("lines", run, work=lambda lab: work))
    reproduce("lines", Lab(tmp_path, "paper", 2, show=said.append))
    assert said[0].startswith("lines costs: paper: a second; 1 runs, 7,200 gradients of")
    assert "hours with 2 at a time" in said[0]
    assert said.index("begun") > 0


def test_points_of_a_lab_get_its_data_folder_and_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "run_points", lambda points, folder, jobs, show: [*points, folder, jobs])
    lab = Lab(tmp_path, jobs=3, data_dir=tmp_path / "data")
    (point, *rest) = lab.points([Point("five", load_experiment("quadratic"))])
    assert isinstance(point, Point)
    assert (point.name, point.experiment.data.dir) == ("five", str(tmp_path / "data"))
    assert rest == [tmp_path, 3]
    assert lab.used == [point, *rest]


def test_every_reproduction_has_its_question_and_cost() -> None:
    for name, reproduction in REPRODUCTIONS.items():
        assert name == reproduction.name
        assert reproduction.question.endswith("?")
        assert reproduction.cost("small")
        assert reproduction.cost("paper")
