"""The comparisons, on losses that are made up, so that who must win is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from launch.lab import finding as frame
from launch.lab.asynchronous import ASYNC_ADAM, ASYNC_CIFAR100
from launch.lab.asynchronous_long import ALONE, ASYNC_CIFAR100_LONG, HERE
from launch.lab.comparison import Arena, all_agree, geometric_mean, race, tune
from launch.lab.contenders import ADAM, CLOSED, MOMENTUM, OPEN, by_gain, product, synchronous, yellowfin
from launch.lab.finding import Finding, Lab, write_finding
from launch.lab.points import Outcome, Point
from launch.lab.synchronous import REPRODUCTIONS as SYNCHRONOUS
from launch.lab.workers import WORKERS_FIGURE
from launch.lab.workloads import workload


def rate(point: Point) -> float:
    """How fast a made-up run learns: Adam best at 1e-3 with β1 = 0, closed YellowFin twice as fast as the open one.

    The default is faster still, four times with its loop closed.
    """
    experiment = point.experiment
    tuner, workers = experiment.tuner, experiment.train.workers
    if tuner.target == "distance":
        return 0.8 if tuner.loop == "open" else 3.2
    if tuner.target == "yellowfin":
        return 2.0 if tuner.loop == "closed" else 1.0
    speed = 1.0 / (1.0 + abs(math.log10(tuner.learning_rate / 1e-3)))
    return speed * (0.5 if tuner.momentum == 0.9 and workers > 1 else 0.9)


def made_up(point: Point, folder: Path) -> Outcome:
    updates = point.experiment.train.updates
    rng = np.random.default_rng(point.experiment.train.seed)
    losses = 1 + 3 * np.exp(-rate(point) * np.arange(updates) / updates) + 0.001 * rng.standard_normal(updates)
    diverged = point.experiment.tuner.learning_rate >= 1.0 and point.experiment.tuner.target == "constant"
    kept = losses[: 50 if diverged else updates]
    summary = {"best_eval": 0.5, "mean_total_momentum": None, "momentum_final": 0.1}
    return Outcome(point, diverged, "diverged" if diverged else "", 1.0, summary, kept, [], folder)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(
        frame, "run_points", lambda points, folder, jobs, show: [made_up(point, folder) for point in points]
    )
    return Lab(tmp_path)


def written(lab: Lab, finding: Finding) -> str:
    folder = write_finding(lab, finding)
    assert (folder / f"{finding.name}.png").stat().st_size > 5000
    return (folder / f"{finding.name}.md").read_text()


def test_candidates_are_every_combination() -> None:
    assert len(product([1, 2], [0.1, 0.2, 0.3])) == 6
    assert by_gain([0.1], [0.9]) == ({"tuner.momentum": 0.9, "tuner.learning_rate": 0.01},)
    assert yellowfin().candidates == ({},)


def test_tuning_takes_the_lowest_smoothed_loss_and_never_what_diverged(lab: Lab) -> None:
    arena = Arena(workload("cifar10", "small"))
    tuned = tune(lab, arena, synchronous("small", recurrent=True))
    assert [one.contender.label for one in tuned] == [ADAM, MOMENTUM, OPEN]
    assert tuned[0].chosen == {"tuner.momentum": 0.9, "tuner.learning_rate": 1e-3}
    assert tuned[1].chosen["tuner.learning_rate"] == 0.1
    assert tuned[1].contender.at_edge(tuned[1].chosen)
    assert not tuned[0].contender.at_edge(tuned[0].chosen)
    entries = race(lab, arena, tuned)
    assert [o.point.experiment.train.seed for o in entries[ADAM].outcomes] == [1, 2, 3]
    assert all(gain > 1 for gain in entries[OPEN].speedups(entries[ADAM]))
    assert entries[ADAM].speedups(entries[ADAM]) == [1.0, 1.0, 1.0]


def test_seeds_must_agree() -> None:
    assert all_agree([1.1, 1.2]) is True
    assert all_agree([0.9, 0.8]) is False
    assert all_agree([0.9, 1.2]) is None
    assert all_agree([1.3, math.nan]) is None
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert math.isnan(geometric_mean([1.0, math.nan]))


def test_one_worker_judges_by_the_numbers(lab: Lab) -> None:
    finding = SYNCHRONOUS["shakespeare"].run(lab)
    assert finding.agrees is True
    assert "above 1 in 3 of 3 seeds" in finding.sentence
    text = written(lab, finding)
    assert "| Adam | β1 0.9, α 0.001 | 5 |" in text
    assert "at the edge of its grid" in text
    assert [row[0] for row in finding.table.rows] == [ADAM, MOMENTUM, OPEN]
    assert {"runs", "grid", "curves"} == set(finding.data)


def test_sixteen_workers_are_compared_with_baselines_tuned_both_ways(lab: Lab) -> None:
    finding = ASYNC_CIFAR100.run(lab)
    assert finding.agrees is True
    kinds = [row[0] for row in finding.table.rows]
    assert kinds == ["synchronously"] * 13 + ["asynchronously"] * 13
    settings = {(row[0], row[1]): row[2] for row in finding.table.rows}
    assert settings["asynchronously", ADAM].startswith("β1 −0.5") or "β1 0" in settings["asynchronously", ADAM]
    assert settings["synchronously", CLOSED] == "nothing tuned"
    assert len(finding.data["runs"].rows) == 2 * 13 * 3
    assert "YellowFin, closed" in written(lab, finding)


def test_longer_runs_say_what_tuning_in_the_wrong_place_costs(lab: Lab) -> None:
    finding = ASYNC_CIFAR100_LONG.run(lab)
    assert finding.agrees is True
    rows = {row[0]: row for row in finding.table.rows}
    assert list(rows) == [ALONE, HERE, "default", "default, loop open"]
    assert rows[ALONE][1] == "β1 −0.5, α 0.001", "the first of equals on one worker"
    assert [row[0] for row in finding.data["grid"].rows].count(HERE) == 16
    assert "6,000 updates" in written(lab, finding)
    assert ASYNC_CIFAR100_LONG.work is not None
    work = ASYNC_CIFAR100_LONG.work(lab)
    assert sum(updates for _, updates in work) == 2 * (16 * 1500 + 4 * 6000) + 4 * 3 * 6000


def test_adams_momentum_is_judged_by_hand_and_by_the_loop(lab: Lab) -> None:
    finding = ASYNC_ADAM.run(lab)
    assert "0.1 (0.1 … 0.1)" in finding.sentence
    assert len(finding.table.rows) == 7
    assert written(lab, finding)


def test_more_workers_are_told_in_updates_and_seconds(lab: Lab) -> None:
    finding = WORKERS_FIGURE.run(lab)
    assert finding.agrees is None
    assert "16" in finding.sentence or "32" in finding.sentence
    rows = {(row[0], row[1]): row for row in finding.table.rows}
    assert rows[CLOSED, 32][4] == pytest.approx(rows[CLOSED, 32][3] / 32)
    assert written(lab, finding)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "ptb", "shakespeare", "parsing"])
def test_workloads_hold_at_both_scales(name: str) -> None:
    small, paper = (workload(name, scale) for scale in ("small", "paper"))  # type: ignore[arg-type]
    assert small.updates < paper.updates
    assert paper.window == 1000
    assert small.experiment().simulate.staleness == "none"
    assert small.experiment(16).simulate.staleness == "round-robin"
