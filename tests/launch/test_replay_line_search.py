"""Replay and the trace take searched distances from the record, and find what was changed in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch import simulate
from launch.replay import replay
from psserver.errors import ConfigurationError
from tests.launch.test_replay import QUADRATIC, edit

SETTINGS = [*QUADRATIC, "tuner.target=yellowfin", "tuner.distance_by=line-search", "tuner.distance_every=4"]
SETTINGS += ["rule.name=momentum_sgd", "tuner.loop=closed"]


def test_a_searched_distance_is_taken_from_the_record_and_its_change_is_found(tmp_path: Path) -> None:
    run = simulate("quadratic", tmp_path / "run", settings=SETTINGS)
    rows = [json.loads(line) for line in (run.path / "arrivals.jsonl").read_text().splitlines()]
    searched = [number for number, row in enumerate(rows) if "distance" in row]
    assert len(searched) == pytest.approx(10, abs=3)
    assert replay(run.path).difference is None
    edit(run.path / "arrivals.jsonl", searched[3], lambda row: row.update(distance=1e-9))
    difference = replay(run.path).difference
    assert difference is not None
    assert (difference.update, difference.field) == (searched[3] + 1, "learning_rate")


@pytest.mark.parametrize("wrong", ["-1.0", "0.0", "[1.0]", '"far"'])
def test_what_is_no_distance_is_refused(wrong: str, tmp_path: Path) -> None:
    run = simulate("quadratic", tmp_path / "run", settings=[*SETTINGS, "train.updates=2", "evaluate.every=0"])
    path = run.path / "arrivals.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(lines[0].removesuffix("}").partition(',"distance"')[0] + f',"distance":{wrong}}}\n')
    with pytest.raises(ConfigurationError, match="line 1: expected a distance above 0"):
        replay(run.path)
