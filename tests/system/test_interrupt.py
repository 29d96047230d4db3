"""Ctrl-C: the first saves and ends everything within five seconds, the second kills; --resume goes on exactly."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from launch import simulate

TIMELESS = ("update", "worker", "version", "loss", "gradient_norm", "learning_rate", "momentum", "total_momentum")
SIXTEEN = [word for key in ("train.workers=16", "task.arguments.seconds=0.3") for word in ("--set", key)]


def limit() -> float:
    """Five seconds on a machine that has its cores for us; up to three times that where others crowd them."""
    return 5 * min(3.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def interrupted(program: Any) -> float:
    """Press Ctrl-C; the seconds until nothing of the program was left."""
    started = time.monotonic()
    program.send(signal.SIGINT)
    program.code(15)
    assert not program.tree()
    return time.monotonic() - started


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(start: Any, yfps: Any, slow: Path, records: Any) -> None:
    run = records(slow.parent / "run")
    settings = ["rule.name=adam", "tuner.target=yellowfin", "tuner.lr_factor=0.002", "rule.weight_decay=0.001"]
    settings += ["train.workers=1", "train.updates=120"]
    options = [word for setting in settings for word in ("--set", setting)]
    train = start("train", slow, "--run-dir", run.folder, *options)
    train.until(lambda: run.updates() >= 40)
    assert interrupted(train) < limit()
    assert train.process.wait() == 130
    assert run.summary()["reason"] == "interrupted"
    stopped = run.summary()["updates"]
    assert 40 <= stopped < 120

    resumed = yfps("train", run.folder, "--resume")
    assert resumed.code() == 0, resumed.err
    assert run.summary()["updates"] == run.summary()["pushes_applied"] == 120
    unbroken = simulate(slow, slow.parent / "unbroken", settings=[*settings, "task.arguments.seconds=0"])
    assert [[row[k] for k in TIMELESS] for row in run.rows("metrics")] == [
        [row[k] for k in TIMELESS] for row in unbroken.metrics
    ]
    seconds = [row["seconds"] for row in run.rows("metrics")]
    assert seconds == sorted(seconds)


def test_sixteen_workers_end_in_the_middle_of_their_gradients(
    start: Any, slow: Path, records: Any, shared_memory: Path
) -> None:
    run = records(slow.parent / "run")
    memory = f"server.shared_memory_dir={shared_memory}"
    (slow.parent / "tmp").mkdir()
    train = start("train", slow, "--run-dir", run.folder, *SIXTEEN, "--set", memory, TMPDIR=str(slow.parent / "tmp"))
    train.until(lambda: run.updates() >= 40)
    assert interrupted(train) < limit()
    assert train.process.wait() == 130
    assert not list((slow.parent / "tmp").iterdir())
    checkpoint = max((run.folder / "checkpoints").glob("*"))
    assert checkpoint.name == f"update-{run.summary()['updates']:08d}.safetensors"
    assert "saving a checkpoint" in train.out
    assert "Traceback" not in train.out + train.err


def test_the_second_interrupt_kills_at_once(start: Any, slow: Path, records: Any) -> None:
    run = records(slow.parent / "run")
    train = start("train", slow, "--run-dir", run.folder)
    train.until(lambda: run.updates() >= 20)
    train.child("launch.server_process").suspend()  # it cannot save
    train.send(signal.SIGINT)
    train.until(lambda: "stopping" in train.out)
    assert train.process.poll() is None
    assert interrupted(train) < limit()
    assert train.process.wait() == 130


def test_an_interrupt_before_the_first_update_ends_it_too(start: Any, slow: Path, records: Any) -> None:
    train = start("train", slow, "--run-dir", slow.parent / "run", *SIXTEEN)
    train.until(lambda: len(train.tree()) > 2)
    assert interrupted(train) < limit()
    assert train.process.wait() == 130


def test_an_interrupted_worker_leaves_and_says_so(start: Any, slow: Path, records: Any) -> None:
    run = records(slow.parent / "run")
    server = start("server", slow, "--bind", "tcp://127.0.0.1:*", "--run-dir", run.folder)
    (address,) = server.until(run.addresses)
    worker = start("worker", slow, "--connect", address)
    server.until(lambda: run.updates() >= 10)
    assert interrupted(worker) < limit()
    assert worker.process.wait() == 130
    server.until(lambda: run.events("left"))
    assert interrupted(server) < limit()
    assert server.process.wait() == 130


DROPPED = """
import dataclasses, os, signal, time
from worker.zoo.digits import mlp

class Signals:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # where Python notices it, raises KeyboardInterrupt, and drops that

def dropping():
    task = mlp(hidden=16, layers=1, batch=16)
    held = [Signals()]
    def loss(module, batch):
        held.clear()
        return task.loss(module, batch)
    return dataclasses.replace(task, loss=loss)
"""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_ends_a_worker_too(start: Any, slow: Path, records: Any) -> None:
    (slow.parent / "dropping.py").write_text(DROPPED)
    run = records(slow.parent / "run")
    server = start("server", slow, "--bind", "tcp://127.0.0.1:*", "--run-dir", run.folder)
    (address,) = server.until(run.addresses)
    worker = start("worker", slow, "--connect", address, "--set", "task.function=dropping.py:dropping")
    assert worker.code() == 130
    assert "KeyboardInterrupt" in worker.err  # dropped where it was raised
    server.until(lambda: run.events("left"))
    assert run.updates() < 300
    interrupted(server)
