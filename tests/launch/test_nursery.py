"""The nursery by its own protocol: lines of JSON in and out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from launch import load_experiment


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    (tmp_path / "logs").mkdir()
    load_experiment("quadratic", ["task.arguments={size=50}"]).write(tmp_path / "experiment.toml")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-m", "launch.nursery"], bufsize=0, **pipes) as process:
        yield process
        process.kill()


def ask(nursery: subprocess.Popen[bytes], **request: Any) -> None:
    assert nursery.stdin is not None
    nursery.stdin.write(json.dumps(request).encode() + b"\n")


def told(nursery: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert nursery.stdout is not None
    answer: dict[str, Any] = json.loads(nursery.stdout.readline())
    return answer


def waiting_worker(nursery: subprocess.Popen[bytes], tmp_path: Path, name: str = "worker-0") -> psutil.Process:
    """A worker that looks for a server that does not exist."""
    ask(nursery, spawn=name, role="worker", rank=0, connect=f"ipc://{tmp_path}/none", run_dir=str(tmp_path))
    answer = told(nursery)
    assert answer["started"] == name
    return psutil.Process(answer["pid"])


def test_it_tells_when_a_child_starts_and_how_it_ends(nursery: subprocess.Popen[bytes], tmp_path: Path) -> None:
    ask(nursery, spawn="rehearsal", role="rehearsal", rank=0, connect="", run_dir=str(tmp_path))
    assert told(nursery)["started"] == "rehearsal"
    assert told(nursery) == {"exited": "rehearsal", "code": 0}
    assert (tmp_path / "logs" / "rehearsal.log").is_file()


def test_it_passes_signals_on_by_name(nursery: subprocess.Popen[bytes], tmp_path: Path) -> None:
    waiting_worker(nursery, tmp_path, "worker-0")
    waiting_worker(nursery, tmp_path, "worker-1")
    ask(nursery, name="worker-1", signal=int(signal.SIGKILL))
    assert told(nursery) == {"exited": "worker-1", "code": -signal.SIGKILL}
    ask(nursery, name="worker-0", signal=int(signal.SIGTERM))
    assert told(nursery) == {"exited": "worker-0", "code": -signal.SIGTERM}


def test_it_ends_with_its_supervisor_and_so_do_its_children(nursery: subprocess.Popen[bytes], tmp_path: Path) -> None:
    worker = waiting_worker(nursery, tmp_path)
    assert nursery.stdin is not None
    nursery.stdin.close()
    assert told(nursery)["code"] == -signal.SIGTERM
    assert nursery.wait(10) == 0
    assert not worker.is_running()


def test_a_child_that_stands_still_is_killed_in_the_end(nursery: subprocess.Popen[bytes], tmp_path: Path) -> None:
    worker = waiting_worker(nursery, tmp_path)
    os.kill(worker.pid, signal.SIGSTOP)
    while worker.status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    assert nursery.stdin is not None
    nursery.stdin.close()
    assert told(nursery)["code"] == -signal.SIGKILL
    assert nursery.wait(10) == 0


def test_what_breaks_in_a_child_goes_to_its_log_and_the_nursery_lives_on(
    nursery: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    load_experiment("quadratic", ["task.arguments={size=0}"]).write(tmp_path / "experiment.toml")
    ask(nursery, spawn="rehearsal", role="rehearsal", rank=0, connect="", run_dir=str(tmp_path))
    assert told(nursery)["started"] == "rehearsal"
    assert told(nursery) == {"exited": "rehearsal", "code": 2}
    assert "expected 1 or more parameters" in (tmp_path / "logs" / "rehearsal.log").read_text()
    waiting_worker(nursery, tmp_path)
