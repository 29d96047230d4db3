"""`yfps bench --update`: a row for every setting, as ratios to Adam with constants."""

from __future__ import annotations

import re

import pytest

from launch import bench_update
from launch.cli import run as yfps
from launch.experiment import Experiment, TaskSection


def test_the_cost_of_an_update_is_printed_for_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert yfps(["bench", "--update", "--size", "500", "--updates", "6"]) == 0
    out = capsys.readouterr().out
    assert "One update of 500 parameters, median of 6 interleaved ones" in out
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == list(bench_update.SETTINGS)
    for row in rows:
        assert all(re.fullmatch(r"\d+\.\d\d( … \d+\.\d\d)?", cell.strip()) for cell in row.split("│")[2:-1])
    base = [cell.strip() for cell in rows[list(bench_update.SETTINGS).index(bench_update.BASE)].split("│")]
    assert base[-3:-1] == ["1.00", "1.00 … 1.00"]


def test_what_is_called_the_default_is_the_default() -> None:
    plain = Experiment(task=TaskSection(function="my_task.py:my_task"))
    name, settings = list(bench_update.SETTINGS.items())[-1]
    assert settings == (plain.rule, plain.tuner)
    assert name == f"the default ({plain.rule.name}, {plain.tuner.target}, {plain.tuner.loop})"


def test_every_setting_makes_as_many_updates() -> None:
    found = bench_update.measure(size=64, updates=3)
    assert {name: len(times) for name, times in found.items()} == dict.fromkeys(bench_update.SETTINGS, 3)


def test_the_default_is_measured_on_several_threads_if_asked() -> None:
    found = bench_update.measure(size=20_000, updates=2, threads=2)
    assert list(found) == [*bench_update.SETTINGS, "the default, 2 threads"]
    assert len(found["the default, 2 threads"]) == 2
