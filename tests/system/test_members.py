"""Processes that die and processes that come: the run goes on, and no push is applied twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil


def past(run: Any, update: int) -> Callable[[], bool]:
    """The run has got that far."""
    return lambda: run.updates() >= update


def test_a_killed_worker_is_missed_and_the_run_completes(start: Any, slow: Path, records: Any) -> None:
    run = records(slow.parent / "run")
    train = start("train", slow, "--run-dir", run.folder, "--set", "launch.worker_restarts=0")
    train.until(past(run, 60))
    psutil.Process(run.workers()[2]).kill()
    assert train.code() == 0, train.err
    (lost,) = run.events("lost")
    assert (lost["worker"], "gone" in lost["text"]) == (2, True)
    assert (run.summary()["workers_lost"], run.summary()["updates"]) == (1, 300)
    assert len(run.rows("metrics")) == 300
    assert run.unique_arrivals()
    assert "worker-2 was killed by SIGKILL; not started again (launch.worker_restarts)" in train.out


def test_a_killed_worker_is_started_again_and_goes_on(start: Any, slow: Path, records: Any) -> None:
    run = records(slow.parent / "run")
    train = start("train", slow, "--run-dir", run.folder, "--updates", 600)
    train.until(past(run, 40))
    first = run.workers()[1]
    psutil.Process(first).kill()
    train.until(lambda: run.workers()[1] != first)
    assert train.code() == 0, train.err
    assert (run.summary()["workers_lost"], run.summary()["updates"]) == (1, 600)
    assert run.unique_arrivals()
    joined = [row["seconds"] for row in run.events("joined") if row["worker"] == 1]
    assert len(joined) == 2
    assert any(row["worker"] == 1 and row["seconds"] > joined[1] for row in run.rows("metrics"))


def test_a_worker_that_joins_later_is_used_at_once(start: Any, slow: Path, records: Any) -> None:
    run = records(slow.parent / "run")
    server = start("server", slow, "--bind", "tcp://127.0.0.1:*", "--run-dir", run.folder)
    (address,) = server.until(run.addresses)
    first = start("worker", slow, "--connect", address)
    server.until(past(run, 30))
    late = start("worker", slow, "--connect", address, RANK="3", WORLD_SIZE="4", LOCAL_RANK="0")
    assert [program.code() for program in (server, first, late)] == [0, 0, 0], server.err
    assert set(run.workers()) == {0, 3}
    joined = next(row["seconds"] for row in run.events("joined") if row["worker"] == 3)
    before = sum(row["seconds"] < joined for row in run.rows("metrics"))
    used = next(row["update"] for row in run.rows("arrivals") if row["worker"] == 3)
    assert 0 < used - before < 30
    assert "worker 3: 300 updates are made" in late.out


def test_workers_wait_for_a_server_that_was_killed_with_its_supervisor(start: Any, slow: Path, records: Any) -> None:
    run = records(slow.parent / "run")
    server = start("server", slow, "--bind", "tcp://127.0.0.1:*", "--run-dir", run.folder)
    (address,) = server.until(run.addresses)
    workers = [start("worker", slow, "--connect", address, SLURM_PROCID=str(k), SLURM_NTASKS="2") for k in (0, 1)]
    server.until(past(run, 120))
    psutil.Process(run.server()).kill()
    server.process.kill()
    server.code()
    deadline = time.monotonic() + 10
    while server.tree() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not server.tree()
    again = start("server", run.folder, "--resume", "--bind", address)
    assert [program.code() for program in (again, *workers)] == [0, 0, 0], again.err
    assert [row["update"] for row in run.rows("metrics")] == list(range(1, 301))
    assert run.unique_arrivals()
    assert "resumed at update" in run.events("resumed")[0]["text"]
    assert run.summary()["pushes_applied"] == 300


def test_a_killed_server_is_started_again_by_its_supervisor(start: Any, slow: Path, records: Any) -> None:
    run = records(slow.parent / "run")
    train = start("train", slow, "--run-dir", run.folder, "--workers", 2)
    train.until(past(run, 80))
    first = run.server()
    psutil.Process(first).kill()
    assert train.code() == 0, train.err
    assert run.server() != first
    assert "the server was killed by SIGKILL; starting it again" in train.out
    assert [row["update"] for row in run.rows("metrics")] == list(range(1, 301))
    assert run.unique_arrivals()
    assert run.summary()["reason"] == "done"


def test_without_its_nursery_a_run_ends_and_says_why(start: Any, slow: Path, records: Any) -> None:
    run = records(slow.parent / "run")
    train = start("train", slow, "--run-dir", run.folder)
    train.until(past(run, 20))
    train.child("launch.nursery").kill()
    assert train.code(20) == 1
    assert "the process that starts workers was killed by SIGKILL; see logs/nursery.log" in train.err
    assert not train.tree()
    assert run.summary()["updates"] >= 20


def test_no_process_outlives_its_supervisor(start: Any, slow: Path, records: Any, shared_memory: Path) -> None:
    run = records(slow.parent / "run")
    train = start(
        "train",
        slow,
        "--run-dir",
        run.folder,
        "--set",
        f"server.shared_memory_dir={shared_memory}",
        TMPDIR=str(slow.parent),
    )
    train.until(past(run, 20))
    assert len(train.tree()) >= 7
    train.process.kill()
    train.process.wait()
    deadline = time.monotonic() + 5
    while train.tree() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not train.tree()
    assert run.summary()["reason"] == "interrupted"
