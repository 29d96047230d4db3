"""`yfps sweep`: the grid file's mistakes, the table, and a sweep that is killed in the middle and started again."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.lab.grid import find_grid, load_grid
from launch.lab.sweep import run_sweep
from psserver.errors import ConfigurationError

GRID = """
experiment = "quadratic"
seeds = [1, 2]
window = 20

[settings]
"train.updates" = 60
task.arguments.size = 200
"task.arguments.h_min" = 0.5

[[variant]]
name = "by hand"
settings = { "tuner.target" = "constant", "tuner.loop" = "open" }
grid = { "tuner.learning_rate" = [0.01, 0.1], "tuner.momentum" = [0.0, 0.5] }

[[variant]]
name = "tuned"
"""
SWEEP = "import sys; from launch.cli_lab import sweep; sweep(sys.argv[1:])"


def write(tmp_path: Path, text: str = GRID) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return path


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def test_every_combination_is_a_point_for_every_seed(tmp_path: Path) -> None:
    grid = load_grid(write(tmp_path), tmp_path / "data")
    assert (grid.name, grid.window) == ("grid", 20)
    assert grid.keys == ("tuner.learning_rate", "tuner.momentum")
    assert len({cell.point.key for cell in grid.cells}) == len(grid.cells) == 2 * (2 * 2 + 1)
    last = grid.cells[7]
    assert (last.variant, last.seed, last.swept) == ("by hand", 2, {"tuner.learning_rate": 0.1, "tuner.momentum": 0.5})
    chosen = last.point.experiment
    assert (chosen.tuner.learning_rate, chosen.tuner.momentum, chosen.train.seed) == (0.1, 0.5, 2)
    assert (chosen.train.updates, chosen.task.arguments["size"], chosen.data.dir) == (60, 200, str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("window", "widnow", "did you mean 'window'"),
        ("grid = ", "gird = ", "variant 1: unknown key 'gird'; did you mean 'grid'"),
        ("tuner.momentum", "tuner.momentun", "variant 'by hand': tuner.momentun: .*did you mean 'momentum'"),
        ("[0.01, 0.1]", "0.01", "tuner.learning_rate: expected a list of values to try, got 0.01"),
        ("[0.0, 0.5]", "[0.0, 2.0]", "momentum.* got 2.0"),
        ("[1, 2]", "[]", "seeds"),
        ('"tuned"', '"by hand"', "a name of its own"),
        ('"quadratic"', '"quadratik"', "quadratic"),
        ("[settings]", "[settings", "expected a TOML file"),
    ],
)
def test_a_mistake_in_a_grid_is_said_with_its_place(was: str, becomes: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=says):
        load_grid(write(tmp_path, GRID.replace(was, becomes)))


def test_a_shipped_grid_is_found_by_its_name_and_holds() -> None:
    grid = load_grid(find_grid("digits"))
    assert len(grid.cells) == 54
    with pytest.raises(ConfigurationError, match="neither a file nor one that is shipped"):
        find_grid("digit")


def test_a_killed_sweep_computes_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    path, folder = write(tmp_path), tmp_path / "out"
    command = [sys.executable, "-c", SWEEP, str(path), "--out", str(folder), "--jobs", "1"]
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while len(list(folder.glob("points/*/outcome.json"))) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    finished = {done.parent.name for done in folder.glob("points/*/outcome.json")}
    assert 3 <= len(finished) < 10

    grid, lines = load_grid(path), list[str]()
    paths = run_sweep(grid, folder, 1, lines.append)
    assert len(lines) == 10 - len(finished)
    runs = {log.parent.name: log.read_text().count("started ") for log in folder.glob("points/*/log")}
    assert len(runs) == 10
    assert all(runs[key] == 1 for key in finished)
    assert sum(runs.values()) <= 11, "only the point in flight may have begun twice"

    run_sweep(grid, tmp_path / "uninterrupted", 1, lines.append)
    assert rows(folder) == rows(tmp_path / "uninterrupted")
    assert len({row["key"] for row in rows(folder)}) == 10
    assert all(file.stat().st_size > 0 for file in paths)
