"""Replay: bit for bit where nothing was changed, and the first difference by name where something was."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from launch import Run, load_experiment, simulate
from launch.cli import run as yfps
from launch.replay import Replayed, replay
from launch.replay_show import sentences
from launch.supervisor import RunFailed
from psserver import load_checkpoint
from psserver.checkpoint import save_checkpoint
from psserver.errors import ConfigurationError

SMALL = ["train.workers=4", "train.updates=40", "checkpoint.every=20", "evaluate.every=0"]
QUADRATIC = [*SMALL, "task.arguments.size=30"]
PLAIN = ["rule.name=adam", "tuner.target=distance", "tuner.loop=both", "tuner.lr_factor=1.0"]
"""What is the default, said to experiments that say otherwise."""

TASK = '''
    """Digits row by row through a recurrent layer; batch 3 of worker 2 is spoilt where that is asked for."""
    import dataclasses
    import torch
    from torch.nn import functional
    from worker.zoo.digits import mlp

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.out = torch.nn.Linear(64 + 12, 12), torch.nn.Linear(12, 10)

    def recurrent(spoilt=False, carry=True):
        task = mlp(batch=16)
        def batches(shard):
            for number, batch in enumerate(task.batches(shard), start=shard.start + 1):
                yield (*batch, torch.tensor(spoilt and (shard.rank, number) == (2, 3)))
        def loss(module, batch, state=None):
            images, labels, bad = batch
            state = torch.zeros(16, 12) if state is None else state
            state = torch.tanh(module.seen(torch.cat([images, state], 1)))
            found = functional.cross_entropy(module.out(state), labels)
            found = found * torch.tensor(float("nan")) if bad else found
            return (found, state) if carry else found
        start = (lambda module: torch.zeros(16, 12)) if carry else None
        return dataclasses.replace(task, model=Net, loss=loss, batches=batches, evaluate=None, state=start)
'''


@pytest.fixture
def recurrent(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(textwrap.dedent(TASK))
    path = tmp_path / "net.toml"
    path.write_text('[task]\nfunction = "net.py:recurrent"\n[simulate]\nstaleness = "gamma"\n')
    return path


@pytest.fixture
def quadratic(tmp_path: Path) -> Run:
    return simulate("quadratic", tmp_path / "run", "memoryless", QUADRATIC)


def said(found: Replayed, run: Run) -> str:
    return "\n".join(sentences(found, run.path))


def edit(path: Path, number: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Change one row of a file of JSON lines."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows[number])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    "settings",
    [
        ["simulate.staleness=memoryless", *PLAIN],
        ["simulate.staleness=gamma", *PLAIN, "rule.name=adamw", "rule.weight_decay=0.1", "rule.staleness=gap-aware"],
        ["server.mode=synchronous", "train.workers=2", *PLAIN, "rule.weight_decay=1e-3"],
        ["simulate.staleness=memoryless", "rule.staleness=gap-aware"],
        ["simulate.staleness=none", "rule.name=adam", "rule.weight_decay=1e-3"],
        ["server.mode=synchronous", "train.workers=2", "rule.name=nesterov"],
        [
            "server.max_staleness=2",
            "rule.name=adamw",
            "rule.weight_decay=0.1",
            "tuner.target=cosine",
            "tuner.estimator=lag",
        ],
        ["simulate.staleness=gamma", "rule.name=dana_slim"],
        ["simulate.staleness=gamma", "rule.name=ormo", "rule.weight_decay=1e-3"],
        ["server.mode=synchronous", "train.workers=2", "rule.name=dana_slim"],
        ["simulate.staleness=memoryless", "rule.name=schedule_free_adamw", "rule.weight_decay=0.1"],
        ["simulate.staleness=memoryless", "rule.name=prodigy", "tuner.target=constant", "tuner.learning_rate=1.0"],
        ["simulate.staleness=memoryless", "tuner.curvature=hessian", "tuner.curvature_every=3"],
        ["server.mode=synchronous", "train.workers=2", "tuner.curvature=hessian", "rule.weight_decay=1e-3"],
        ["simulate.staleness=memoryless", "tuner.distance_by=line-search", "tuner.distance_every=3"],
    ],
    ids=[
        "the defaults",
        "the defaults, decayed",
        "the defaults in rounds",
        "memoryless",
        "adam",
        "synchronous",
        "bounded",
        "dana",
        "ormo",
        "dana-synchronous",
        "schedule-free",
        "prodigy",
        "curvature",
        "curvature in rounds",
        "line search",
    ],
)
def test_a_simulated_run_is_identical(settings: list[str], tmp_path: Path) -> None:
    small = [*SMALL, "task.arguments.width=2", "task.arguments.batch=8"]
    run = simulate("digits_async16", tmp_path / "run", settings=[*small, *settings])
    found = replay(run.path)
    assert (found.difference, found.updates, found.checkpoints) == (None, 40, [20, 40])
    assert found.gradients == (80 if "server.mode=synchronous" in settings else 40)
    equal = (
        f"identical: 40 updates, {found.gradients} gradients, parameters and optimizer state equal at updates 20 and 40"
    )
    assert said(found, run) == equal


def test_discarded_gradients_are_left_out_but_move_a_recurrent_state_on(recurrent: Path, tmp_path: Path) -> None:
    threshold = ["rule.staleness=threshold", "rule.delay_threshold=3", "rule.name=dana_slim", "tuner.target=yellowfin"]
    run = simulate(recurrent, tmp_path / "run", settings=[*SMALL, *threshold])
    rejected = run.summary["pushes_rejected"]
    assert rejected > 0
    assert max(row["staleness"] for row in run.metrics) == 2
    found = replay(run.path)
    assert (found.difference, found.updates, found.gradients, found.notes) == (None, 40, 40 + rejected, [])


def test_the_trajectory_itself_is_followed_to_where_one_asks(quadratic: Run) -> None:
    seen: list[tuple[int, int]] = []
    found = replay(quadratic.path, until=25, progress=lambda update, last: seen.append((update, last)))
    assert (found.updates, found.gradients, found.checkpoints) == (25, 25, [20])
    assert seen == [(update, 25) for update in range(1, 26)]


@pytest.mark.parametrize("field", ["loss", "gradient_norm", "learning_rate", "momentum", "total_momentum"])
def test_a_number_that_differs_is_named_with_its_push(field: str, quadratic: Run) -> None:
    recorded = quadratic.metrics[17][field]
    changed = recorded * (1 + 2**-50) if recorded else 1e-300
    edit(quadratic.path / "metrics.jsonl", 17, lambda row: row.update({field: changed}))
    difference = replay(quadratic.path).difference
    row = json.loads((quadratic.path / "arrivals.jsonl").read_text().splitlines()[17])
    assert difference is not None
    assert (difference.update, difference.field) == (18, field)
    assert (difference.worker, difference.step, difference.version) == (row["worker"], row["step"], row["version"])
    assert (difference.recorded, difference.recomputed) == (repr(changed), repr(recorded))


def test_another_version_worker_or_step_changes_what_comes_of_it(quadratic: Run) -> None:
    original = (quadratic.path / "arrivals.jsonl").read_text()
    changes: Sequence[tuple[str, Callable[[int], int], str]] = (
        ("version", lambda version: version - 1, "loss"),
        ("worker", lambda worker: (worker + 1) % 4, "loss"),
        ("step", lambda step: step + 1, "loss"),
        ("version", lambda version: 35, "version"),
        ("update", lambda update: 32, "arrivals.jsonl"),
    )
    for key, change, field in changes:
        (quadratic.path / "arrivals.jsonl").write_text(original)
        edit(quadratic.path / "arrivals.jsonl", 30, lambda row, k=key, c=change: row.update({k: c(row[k])}))
        difference = replay(quadratic.path).difference
        assert difference is not None
        assert (difference.field, difference.update) == (field, 32 if key == "update" else 31)


def test_parameters_that_differ_are_named_as_the_model_names_them(tmp_path: Path) -> None:
    run = simulate("digits_async16", tmp_path / "run", settings=[*SMALL, "task.arguments.width=4"])
    path = run.checkpoint()
    state = load_checkpoint(path)
    flat = state["parameters"]
    flat[38] = torch.nextafter(flat[38], torch.tensor(9.0))
    flat[-1] += 0.5
    path.unlink()
    save_checkpoint(path.parent, 40, state, keep=9)
    found = replay(run.path)
    assert found.difference is not None
    assert (found.difference.update, found.difference.field, found.checkpoints) == (40, "parameters", [20])
    first, last = found.difference.details
    assert first.startswith("1.bias: 1 of 4 values differ, by at most ")
    assert last == "9.bias: 1 of 10 values differ, by at most 0.5"
    assert last in said(found, run)


def test_the_state_of_the_tuner_is_compared_too(quadratic: Run) -> None:
    path = quadratic.checkpoint()
    state = load_checkpoint(path)
    state["tuner"]["target"]["count"] += 1
    path.unlink()
    save_checkpoint(path.parent, 40, state, keep=9)
    difference = replay(quadratic.path).difference
    assert difference is not None
    assert (difference.field, difference.recorded, difference.recomputed) == ("tuner.target.count", "41", "40")


@pytest.mark.parametrize("carry", [True, False])
def test_of_a_push_that_was_not_finite_it_says_whose(carry: bool, recurrent: Path, tmp_path: Path) -> None:
    settings = [*SMALL, "task.arguments.spoilt=true", f"task.arguments.carry={str(carry).lower()}"]
    run = simulate(recurrent, tmp_path / "run", settings=settings)
    found = replay(run.path)
    assert (found.difference, found.updates, found.gradients, found.notes) == (None, 40, 41, [])
    (appeared,) = found.not_finite
    assert (appeared.what, appeared.worker, appeared.step) == ("gradient", 2, 3)
    assert "out.bias: 10 of 10 values" in appeared.tensors
    assert "worker 2, step 3, computed at version" in said(found, run)


def test_a_measured_curvature_is_taken_from_the_record_and_its_change_is_found(tmp_path: Path) -> None:
    settings = [*QUADRATIC, "tuner.target=yellowfin", "tuner.curvature=hessian", "tuner.curvature_every=4"]
    settings += ["rule.name=momentum_sgd", "tuner.loop=closed"]
    run = simulate("quadratic", tmp_path / "run", settings=settings)
    rows = [json.loads(line) for line in (run.path / "arrivals.jsonl").read_text().splitlines()]
    measured = [number for number, row in enumerate(rows) if "curvature" in row]
    assert len(measured) == pytest.approx(10, abs=3)
    assert 0 < rows[measured[-1]]["curvature"][1] < rows[measured[-1]]["curvature"][0] < 1.001
    edit(run.path / "arrivals.jsonl", measured[3], lambda row: row["curvature"].__setitem__(0, 0.5))
    difference = replay(run.path).difference
    assert difference is not None
    assert (difference.update, difference.field) == (measured[3] + 1, "learning_rate")
    edit(run.path / "arrivals.jsonl", measured[3], lambda row: row.update(curvature=[1.0]))
    with pytest.raises(ConfigurationError, match="expected a curvature of two numbers"):
        replay(run.path)


def test_a_recurrent_step_that_the_record_lacks_is_told(recurrent: Path, tmp_path: Path) -> None:
    run = simulate(recurrent, tmp_path / "run", settings=[*SMALL, "task.arguments.spoilt=true"])
    path = run.path / "arrivals.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "not-finite" not in line))
    found = replay(run.path)
    assert found.difference is not None
    assert "worker 2: step 4 goes on from step 3, which cannot be computed again" in found.notes[0]


@pytest.mark.parametrize("mode", ["asynchronous", "synchronous"])
def test_of_a_run_that_diverged_it_says_where_and_by_what(mode: str, tmp_path: Path) -> None:
    settings = [
        *QUADRATIC,
        "rule.name=momentum_sgd",
        "tuner.target=constant",
        "tuner.learning_rate=1e6",
        "tuner.loop=open",
        f"server.mode={mode}",
    ]
    with pytest.raises(RunFailed):
        simulate("quadratic", tmp_path / "run", settings=settings)
    run = Run(tmp_path / "run")
    found = replay(run.path)
    assert found.identical
    assert found.updates == run.summary["updates"] < 40
    assert found.not_finite
    assert not torch.isfinite(torch.tensor(found.not_finite[0].loss)) or found.not_finite[0].tensors
    assert "the run failed: diverged" in said(found, run)


def test_rows_that_were_never_written_are_not_missed_silently(quadratic: Run) -> None:
    path = quadratic.path / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(True)[:30]))
    found = replay(quadratic.path)
    assert found.identical
    assert found.notes == ["metrics.jsonl lacks 10 of 40 updates, which were not compared"]


def test_the_command_exits_with_0_or_1_or_says_what_is_missing(
    quadratic: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yfps(["replay", str(quadratic.path), "--until", "30"]) == 0
    assert capsys.readouterr().out.startswith("identical: 30 updates, 30 gradients, parameters and optimizer state")
    edit(quadratic.path / "metrics.jsonl", 4, lambda row: row.update(loss=1.0))
    assert yfps(["replay", str(quadratic.path)]) == 1
    assert capsys.readouterr().out.startswith("different at update 5: worker ")
    (tmp_path / "empty").mkdir()
    load_experiment("quadratic").write(tmp_path / "empty" / "experiment.toml")
    assert yfps(["replay", str(tmp_path / "empty")]) == 2
    assert "expected the arrivals of a run, found none" in capsys.readouterr().err
