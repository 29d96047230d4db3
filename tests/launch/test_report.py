"""The report: whole, killed and strange runs, one or several, on a page that needs nothing but itself."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch.experiment import load_experiment
from launch.history import load_histories, load_history, smoothed
from launch.report import report
from launch.report.pictures import PANELS, panel_svg
from launch.report.tables import differences, summary_shown
from psserver.errors import ConfigurationError
from tests.launch.records import row, write_run

MINUS = "−"


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def make(name: str, rows: list[dict[str, Any]], *settings: str, **more: Any) -> Path:
        return write_run(tmp_path / name, rows, *settings, **more)

    return make


class Links(HTMLParser):
    """Collects what a page would load, and whether every tag that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "link", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_is_one_page_that_loads_nothing(make: Any) -> None:
    page = report([make("run", [row(n) for n in range(1, 300)])])
    links = Links(page.read_text())
    assert len(links.loaded) == len(PANELS)
    assert all(link.startswith("data:") for link in links.loaded)
    assert links.open == []
    own = re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL)
    assert not re.search(r"url\(|@import|<iframe", own)
    assert "default-src 'none'" in own


def test_the_picture_lies_beside_the_page(make: Any) -> None:
    page = report([make("run", [row(1), row(2)])])
    assert page.name == "report.html"
    assert page.with_name("report.png").read_bytes().startswith(b"\x89PNG")


def test_words_of_a_run_cannot_become_markup(make: Any) -> None:
    text = report([make("<b>run & co", [row(1)])]).read_text()
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "&lt;b&gt; killed&lt;/b&gt;" in own
    assert "&lt;b&gt;run &amp; co" in own
    assert "<b>" not in own


def test_a_killed_run_is_told_from_its_rows(make: Any) -> None:
    run = load_history(make("killed", [row(n) for n in range(1, 201)], finished=False))
    told = summary_shown(run)
    assert (told["updates"], told["ended"], told["workers lost"]) == ("200", "unfinished", "1")
    assert (told["best accuracy"], told["mean total momentum"], told["lowest momentum"]) == (
        "0.9",
        "0.8",
        f"{MINUS}0.2",
    )
    assert "unfinished" in report([run.path]).read_text()


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(1)],
        [row(n, loss=None, total_momentum=None, gradient_norm=None) for n in range(1, 50)],
        [row(n, loss=10.0**n, learning_rate=10.0**-n) for n in range(1, 50)],
        [row(n, loss=-1.0, learning_rate=0.0, staleness=0) for n in range(1, 50)],
        [row(n, staleness=random.Random(n).randrange(5000)) for n in range(1, 50)],
        [row(n) for n in range(1, 5000)],
    ],
    ids=["no row", "one row", "nulls", "diverging", "zeros", "very stale", "long"],
)
def test_any_rows_make_a_report(make: Any, rows: list[dict[str, Any]]) -> None:
    assert report([make("run", rows)]).stat().st_size > 10_000


def test_a_run_that_has_only_begun_makes_a_report(tmp_path: Path) -> None:
    load_experiment("quadratic").write(tmp_path / "experiment.toml")
    assert report([tmp_path]).is_file()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected a run's folder"):
        report([tmp_path])


def test_several_runs_are_laid_over_each_other_with_what_differs(make: Any, tmp_path: Path) -> None:
    paths = [make(f"gain-{gain}", [row(1), row(2)], f"tuner.gain={gain}") for gain in (0.01, 0.1)]
    runs = load_histories(paths)
    assert differences(runs) == {"tuner.gain": ["0.01", "0.1"]}
    assert "gain-0.01" in panel_svg(PANELS["Training loss over updates"], runs)
    page = report(paths, tmp_path / "out" / "both.html")
    assert (page, page.with_suffix(".png").is_file()) == (tmp_path / "out" / "both.html", True)


def test_runs_of_the_same_name_are_told_apart(make: Any) -> None:
    runs = load_histories([make("a/run", [row(1)]), make("b/run", [row(1)])])
    assert [run.name for run in runs] == ["a/run", "b/run"]


def test_many_runs_share_one_legend(make: Any) -> None:
    assert report([make(f"a rather long name of a run {n}", [row(1), row(2)]) for n in range(9)]).is_file()


def test_smoothing_is_the_mean_of_the_last_measured_values() -> None:
    values = np.array([np.nan, 1.0, 3.0, np.nan, 5.0, 7.0])
    literal = [np.nan, 1.0, 2.0, 2.0, 4.0, 6.0]
    np.testing.assert_allclose(smoothed(values, 3), literal)
