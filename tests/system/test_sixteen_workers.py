"""The run everything is for: 16 worker processes, CIFAR-10, ResNet-20, from the command line (and shorter)."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from launch import Run, load_experiment
from launch.build import make_task

UPDATES = 400
WORKERS = 16
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def run(cifar_data: Path, program: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run, after it ended by itself and left nothing behind. Batches of 8: half a minute on two cores."""
    folder = tmp_path_factory.mktemp("sixteen")
    (folder / "tmp").mkdir()
    memory = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="test-"))
    settings = [
        *("task.arguments.batch=8", "task.arguments.evaluate_examples=2000"),
        *(f"train.updates={UPDATES}", f"server.shared_memory_dir={memory}", "tuner.robust=false"),
    ]
    options = [word for setting in settings for word in ("--set", setting)]
    where = ["--data-dir", cifar_data, "--run-dir", folder / "run"]
    train = program(("train", "cifar10_resnet20_async16", *where, *options), folder, {"TMPDIR": str(folder / "tmp")})
    try:
        train.until(lambda: len(train.tree()) > WORKERS + 2)
        assert train.code(220) == 0, train.err
        left = [*train.tree(), *memory.iterdir(), *(folder / "tmp").iterdir()]
        assert (left, train.err) == ([], "")
    finally:
        train.end()
        shutil.rmtree(memory)
    return Run(folder / "run")


def test_every_update_has_its_row(run: Run) -> None:
    rows = run.metrics
    assert [row["update"] for row in rows] == list(range(1, UPDATES + 1))
    assert all(row["staleness"] == row["update"] - 1 - row["version"] >= 0 for row in rows)
    assert {row["worker"] for row in rows} == set(range(WORKERS))
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(rows))


def test_every_push_is_accounted_for(run: Run) -> None:
    summary = run.summary
    logs = [(run.path / "logs" / f"worker-{k}.log").read_text() for k in range(WORKERS)]
    counts = [re.search(r"\((\d+) pushes, (\d+) refused\)", log) for log in logs]
    assert all(counts)
    assert sum(int(found[1]) for found in counts if found) == summary["pushes_received"]
    assert summary["pushes_applied"] == summary["updates"] == UPDATES
    assert summary["pushes_received"] == summary["pushes_applied"] + summary["pushes_rejected"]
    assert (summary["reason"], summary["workers"], summary["workers_lost"]) == ("done", WORKERS, 0)


def test_every_push_is_applied_once_and_in_order(run: Run, records: Any) -> None:
    arrivals = records(run.path).rows("arrivals")
    assert [row["update"] for row in arrivals] == list(range(1, UPDATES + 1))
    for worker in range(WORKERS):
        steps = [row["step"] for row in arrivals if row["worker"] == worker]
        assert steps == sorted(set(steps))
    assert min(Counter(row["worker"] for row in arrivals).values()) > UPDATES / WORKERS / 3


def test_staleness_is_that_of_sixteen_workers(run: Run) -> None:
    mean = sum(row["staleness"] for row in run.metrics) / UPDATES
    assert run.summary["mean_staleness"] == pytest.approx(mean)
    assert 14 < mean < 16


def test_it_trains(run: Run) -> None:
    losses = [row["loss"] for row in run.metrics]
    start, end = sum(losses[:50]) / 50, sum(losses[-100:]) / 100
    assert end < start - 0.5
    assert run.summary["final_train_loss"] == pytest.approx(end)
    assert run.evaluations[-1]["accuracy"] > 0.15


def test_total_momentum_is_measured_and_the_loop_answers(run: Run) -> None:
    measured = [row["total_momentum"] for row in run.metrics if row["total_momentum"] is not None]
    assert len(measured) > 0.9 * UPDATES
    assert run.summary["mean_total_momentum"] == pytest.approx(sum(measured) / len(measured))
    assert any(row["momentum"] < row["target_momentum"] for row in run.metrics)
    assert run.summary["momentum_min"] == min(row["momentum"] for row in run.metrics)


def test_the_checkpoint_evaluates_to_what_the_evaluator_found(run: Run, program: Any, tmp_path: Path) -> None:
    evaluate = program(("evaluate", run.path), tmp_path, {})
    assert evaluate.code() == 0, evaluate.err
    found = dict(line.split() for line in evaluate.out.splitlines())
    last = run.summary["last_eval"]
    assert int(found["update"]) == run.summary["last_eval_update"] == UPDATES
    assert float(found["accuracy"]) == pytest.approx(last["accuracy"], abs=1e-6)
    assert float(found["loss"]) == pytest.approx(last["loss"], rel=1e-5)


def test_the_trained_model_loads_into_the_users_own(run: Run) -> None:
    task = make_task(load_experiment(run.path))
    model = task.model()
    model.load_state_dict(run.state_dict())
    assert task.evaluate is not None
    with torch.no_grad():
        found = task.evaluate(model.eval())
    assert found["accuracy"] == run.summary["last_eval"]["accuracy"]


def test_tensorboard_has_the_curves(run: Run) -> None:
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"momentum/algorithmic", "momentum/target", "momentum/total"} < set(tags)
    assert max(event.step for tag in tags for event in events.Scalars(tag)) == UPDATES


def test_the_report_is_there(run: Run) -> None:
    assert "<html" in (run.path / "report.html").read_text()
    assert (run.path / "report.png").read_bytes().startswith(b"\x89PNG")
