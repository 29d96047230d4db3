"""The hold on a run's processes: they start, their ends are noticed, and none is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from launch import load_experiment
from launch.processes import Exit, Processes

SETTINGS = ["task.arguments={size=100}", "train.updates=20", "train.workers=1"]


def within(condition: Callable[[], object], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(process: psutil.Process) -> bool:
    """It has ended; whoever inherited it may not have taken note yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return True


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    load_experiment("quadratic", SETTINGS).write(tmp_path / "experiment.toml")
    held = Processes(tmp_path)
    yield held
    held.close()


def test_a_run_of_three_processes_ends_with_three_zeros(processes: Processes, tmp_path: Path) -> None:
    processes.start_server([f"ipc://{tmp_path}/s"], resume=False)
    within(processes.server_addresses)
    addresses = processes.server_addresses()
    assert addresses == [f"ipc://{tmp_path}/s"]
    processes.spawn("worker-0", "worker", 0, addresses[0])
    processes.spawn("evaluator", "evaluator", connect=addresses[0])
    exits: list[Exit] = []
    within(lambda: exits.extend(processes.ended()) or len(exits) == 3)
    assert {(exit_.name, exit_.code) for exit_ in exits} == {("server", 0), ("worker-0", 0), ("evaluator", 0)}
    assert not processes.running
    assert "20 updates are made" in (tmp_path / "logs" / "worker-0.log").read_text()


def test_a_killed_process_is_told_by_its_signal(processes: Processes) -> None:
    processes.spawn("worker-3", "worker", 3, "tcp://127.0.0.1:9")
    within(lambda: processes.ended() == [] and processes.running["worker-3"])
    processes.signal("worker-3", signal.SIGKILL)
    exits: list[Exit] = []
    within(lambda: exits.extend(processes.ended()) or exits)
    assert exits == [Exit("worker-3", -signal.SIGKILL)]
    assert exits[0].how == "was killed by SIGKILL"
    processes.signal("worker-3", signal.SIGKILL)  # it is gone; nothing happens


def test_what_a_process_says_about_its_end_is_kept(processes: Processes, tmp_path: Path) -> None:
    load_experiment("quadratic", [*SETTINGS, "task.arguments={sise=3}"]).write(tmp_path / "experiment.toml")
    processes.spawn("rehearsal", "rehearsal")
    exits: list[Exit] = []
    within(lambda: exits.extend(processes.ended()) or exits)
    assert (exits[0].code, exits[0].how) == (2, "ended with exit code 2")
    said = processes.failure("rehearsal")
    assert said is not None
    assert (said["kind"], "did you mean 'size'" in said["text"]) == ("ConfigurationError", True)
    assert processes.failure("worker-9") is None


def test_the_end_of_the_nursery_is_the_end_of_all_it_started(processes: Processes) -> None:
    processes.spawn("worker-0", "worker", 0, "tcp://127.0.0.1:9")
    within(lambda: processes.ended() == [] and processes.running["worker-0"])
    worker = psutil.Process(processes.running["worker-0"])
    worker.parent().kill()
    exits: list[Exit] = []
    within(lambda: exits.extend(processes.ended()) or exits)
    assert [exit_.name for exit_ in exits] == ["worker-0", "nursery"]
    within(lambda: gone(worker))
    processes.spawn("worker-1", "worker", 1, "tcp://127.0.0.1:9")  # asks nobody, and does not raise
    assert processes.server_addresses() is None


def test_closing_ends_even_what_ignores_signals(tmp_path: Path) -> None:
    load_experiment("quadratic", SETTINGS).write(tmp_path / "experiment.toml")
    processes = Processes(tmp_path)
    processes.spawn("worker-0", "worker", 0, "tcp://127.0.0.1:9")
    within(lambda: processes.ended() == [] and processes.running["worker-0"])
    os.kill(processes.running["worker-0"], signal.SIGSTOP)
    worker = psutil.Process(processes.running["worker-0"])
    within(lambda: worker.status() == psutil.STATUS_STOPPED)
    processes.close(patience=0.5)
    within(lambda: gone(worker), 5)
