"""The report as a browser shows it: drawn without complaint or request, fit for a phone, obedient to its reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.report import report
from tests.launch import browser
from tests.launch.records import arrival, row, write_run

RUNS = ("open", "closed", "<b>odd & even")
DRAWN = "[...document.querySelectorAll('SELECTOR')].every((one) => one.querySelector('svg.main-svg'))"
DARK = "rgb(230, 233, 238)"
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
        tab.screen(375, 700, "light", touch=True)
        tab.open(page)
        tab.run(OPEN)
        tab.run(f"document.querySelector('{LAST}').scrollIntoView()")
        tab.wait(DRAWN.replace("SELECTOR", LAST))
        assert tab.run(WIDTH) == 375
        tab.screen(1280, 900, "dark", touch=False)
        tab.run("scrollTo(0, 0)")
        tab.wait(DRAWN.replace("SELECTOR", ":not(details) > .charts .plot"))
        tab.wait(f"{COLOUR} === '{DARK}'")
        assert tab.run(WIDTH) <= 1280
        assert (tab.run(OVER), tab.run(LINES)) == ("updates", 3)
        tab.run(PRESS)
        tab.run(CHOOSE)
        assert (tab.run(OVER), tab.run(LINES)) == ("seconds", 2)
        lines = str(tab.run(CSV)).splitlines()
        assert lines[:2] == ["series,seconds,Training loss,staleness,text", "open,0.03,2.09002,,"]
        assert len(lines) == 1 + 2 * 59
        assert tab.run("document.getElementById('trouble').hidden") is True
        assert (tab.errors, set(tab.requests)) == ([], {page.as_uri()})
