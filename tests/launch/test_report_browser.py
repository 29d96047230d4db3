"""The report as a browser shows it: drawn without complaint or request, fit for a phone, obedient to its reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.report import report
from tests.launch import browser
from tests.launch.records import arrival, row, write_run

RUNS = ("open", "closed", "<b>odd & even")
DRAWN = """new Promise((done) => {
  const drawn = (one) => one.querySelector("svg.main-svg");
  const look = () => [...document.querySelectorAll("SELECTOR")].every(drawn) ? done() : setTimeout(look, 30);
  look();
})"""
LAST = "[data-chart=timeline-2]"
OPEN = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
WIDTH = "document.documentElement.scrollWidth"
COLOUR = "document.querySelector('[data-chart=loss] .xtitle').style.fill"
OVER = "document.querySelector('[data-chart=loss] .xtitle').textContent"
LINES = "document.querySelectorAll('[data-chart=loss] .scatterlayer .trace').length"
PRESS = "document.querySelector('[data-tag=\"run:1\"]').click()"
CHOOSE = """for (const [name, value] of [["over", "seconds"], ["window", "1"]]) {
  const one = document.querySelector(`[data-choose=${name}]`);
  one.value = value;
  one.dispatchEvent(new Event("change", { bubbles: true }));
}"""
CSV = """new Promise((done) => {
  URL.createObjectURL = (blob) => { blob.text().then(done); return "#"; };
  document.querySelector("[data-csv=loss]").click();
})"""


def test_a_browser_draws_the_report_on_a_phone_and_on_a_desk(tmp_path: Path) -> None:
    command = browser.find()
    if command is None:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is on the PATH")
    rows = [row(n) for n in range(1, 60)]
    runs = [write_run(tmp_path / name, rows, arrivals=[arrival(n) for n in range(1, 60)]) for name in RUNS]
    page = report(runs, tmp_path / "report.html")
    with browser.browser(command, tmp_path / "profile") as tab:
        tab.show(page, 375, 1200, touch=True)
        tab.run(OPEN)
        tab.run(f"document.querySelector('{LAST}').scrollIntoView()")
        tab.run(DRAWN.replace("SELECTOR", LAST))
        assert tab.run(WIDTH) == 375
        tab.show(page, 1280, 4000, scheme="dark")
        tab.run(DRAWN.replace("SELECTOR", ":not(details) > .charts .plot"))
        assert tab.run(WIDTH) <= 1280
        assert (tab.run(OVER), tab.run(LINES), tab.run(COLOUR)) == ("updates", 3, "rgb(230, 233, 238)")
        tab.run(PRESS)
        tab.run(CHOOSE)
        assert (tab.run(OVER), tab.run(LINES)) == ("seconds", 2)
        lines = str(tab.run(CSV)).splitlines()
        assert lines[:2] == ["series,seconds,Training loss,staleness,text", "open,0.03,2.09002,,"]
        assert len(lines) == 1 + 2 * 59
        assert tab.run("document.getElementById('trouble').hidden") is True
        assert (tab.errors, set(tab.requests)) == ([], {page.as_uri()})
