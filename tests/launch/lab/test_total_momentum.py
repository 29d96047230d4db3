"""Total momentum on exact staleness: the algorithmic one without it, above it with it, held at a target by the loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import Experiment, simulate
from launch.lab import finding as frame
from launch.lab.finding import Lab, write_finding
from launch.lab.points import Outcome, Point
from launch.lab.total_momentum import HELD, TOLERANCE, Measured, quadratic, run_loop, run_total


def outcome(point: Point, folder: Path) -> Outcome:
    run = simulate(point.experiment, folder)
    losses = np.array([row["loss"] for row in run.metrics])
    return Outcome(point, False, "", 0.0, run.summary, losses, run.evaluations, run.path)


def measured(experiment: Experiment, folder: Path) -> Measured:
    return Measured.of(outcome(Point("run", experiment), folder))


@pytest.mark.parametrize("setting", ["train.workers=1", "server.mode=synchronous"])
def test_without_staleness_it_is_the_algorithms_in_every_update(setting: str, tmp_path: Path) -> None:
    found = measured(quadratic(0.5, 0.02, 60, 0.0, "train.workers=4", setting), tmp_path)
    assert found.largest <= TOLERANCE
    assert found.lag == pytest.approx(0.5)


@pytest.mark.parametrize("momentum", [-0.3, 0.0, 0.5])
def test_staleness_lifts_it_above_the_algorithms(momentum: float, tmp_path: Path) -> None:
    found = measured(quadratic(momentum, 0.02, 200, 0.0), tmp_path)
    assert found.mean(found.staleness) == 15
    assert found.excess > 0.1
    assert found.lag == pytest.approx(1 - 1 / (1 + 15 + momentum / (1 - momentum)))


def test_the_loop_holds_it_at_the_target_with_a_momentum_below_zero(tmp_path: Path) -> None:
    found = measured(quadratic(0.3, 0.04, 600, 0.0, "tuner.loop=closed"), tmp_path)
    assert abs(found.mean(found.total) - 0.3) < HELD
    assert found.mean(found.momentum) < 0


def test_noise_hides_the_excess_from_the_loop(tmp_path: Path) -> None:
    found = measured(quadratic(0.3, 0.04, 600, 10.0, "tuner.loop=closed"), tmp_path)
    assert found.mean(found.momentum) > 0.2


# After 200 updates the loop has not settled yet: that is said, too.
@pytest.mark.parametrize(("run", "updates", "agrees"), [(run_total, 80, True), (run_loop, 200, False)])
def test_a_finding_is_judged_from_its_runs(
    run: Any, updates: int, agrees: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(points: Sequence[Point], folder: Path, *_: Any) -> list[Outcome]:
        least = (f"train.updates={updates}", "simulate.staleness=round-robin")
        few = [Point(point.name, point.experiment.with_settings(*least)) for point in points]
        return [outcome(point, folder / str(number)) for number, point in enumerate(few)]

    monkeypatch.setattr(frame, "run_points", short)
    lab = Lab(tmp_path)
    found = run(lab)
    assert found.agrees is agrees
    assert write_finding(lab, found).joinpath(f"{found.name}.png").is_file()
