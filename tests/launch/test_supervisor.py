"""What the supervisor decides when a process ends, with processes that only pretend."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch import load_experiment
from launch.processes import Exit
from launch.supervisor import Interrupted, RunFailed, Supervisor
from psserver.errors import TaskError


class Pretended:
    """`Processes` without processes: ends are put into `exits`."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.running: dict[str, int] = {}
        self.exits: list[Exit] = []
        self.failures: dict[str, dict[str, Any]] = {}
        self.signals: list[tuple[str, int]] = []
        self.started: list[str] = []
        self.resumed: list[bool] = []

    def start_server(self, bind: list[str], resume: bool) -> None:
        self.running["server"] = 1
        self.resumed.append(resume)

    def spawn(self, name: str, role: str, rank: int = 0, connect: str = "") -> None:
        self.running[name] = 1
        self.started.append(name)
        if name == "rehearsal":
            self.exits.append(Exit(name, 0))

    def server_addresses(self) -> list[str]:
        return ["ipc:///s"]

    def ended(self) -> list[Exit]:
        exits, self.exits = self.exits, []
        for exit_ in exits:
            self.running.pop(exit_.name, None)
        return exits

    def failure(self, name: str) -> dict[str, Any] | None:
        return self.failures.get(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        self.signals.append((name, number))
        if name == "server":
            self.exits.append(Exit("server", 0))


Make = Callable[..., tuple[Supervisor, Pretended]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A supervisor of a run with two workers, just started; restarts come without delay."""
    monkeypatch.setattr("launch.supervisor._BACKOFF_SECONDS", 0.0)

    def make_(*settings: str) -> tuple[Supervisor, Pretended]:
        processes: Any = Pretended(tmp_path)
        said: list[str] = []
        supervisor = Supervisor(load_experiment("quadratic", settings), processes, ["x"], False, 2, said.append)
        supervisor.start()
        return supervisor, processes

    return make_


def test_workers_start_after_server_and_rehearsal(make: Make) -> None:
    _, processes = make()
    assert processes.started == ["rehearsal", "worker-0", "worker-1", "evaluator"]


def test_a_worker_is_started_again_as_often_as_was_said(make: Make) -> None:
    supervisor, processes = make("launch.worker_restarts=2")
    for _ in range(3):
        processes.exits.append(Exit("worker-1", -9))
        assert supervisor.step()
    assert processes.started.count("worker-1") == 3
    assert processes.started.count("worker-0") == 1


def test_a_run_without_workers_left_fails_and_names_the_last(make: Make) -> None:
    supervisor, processes = make("launch.worker_restarts=0")
    processes.exits.append(Exit("worker-1", -9))
    assert supervisor.step()
    processes.exits.append(Exit("worker-0", -11))
    assert not supervisor.step()
    assert ("server", signal.SIGTERM) in processes.signals
    processes.running.clear()
    with pytest.raises(RunFailed, match=r"no worker is left; the last one: worker-0 was killed by SIGSEGV; see logs"):
        supervisor.finish()


def test_a_task_that_fails_before_the_first_update_ends_the_run_with_its_own_error(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor, processes = make()
    processes.failures["worker-0"] = {"kind": "TaskError", "text": "it raised", "trace": "my traceback"}
    processes.exits.append(Exit("worker-0", 2))
    with pytest.raises(TaskError, match="it raised"):
        supervisor.step()
    assert "my traceback" in capsys.readouterr().err


def test_a_task_that_fails_later_loses_a_worker_only(make: Make) -> None:
    supervisor, processes = make()
    supervisor.updates_seen = 5
    processes.failures["worker-0"] = {"kind": "TaskError", "text": "it raised", "trace": "my traceback"}
    processes.exits.append(Exit("worker-0", 2))
    assert supervisor.step()
    assert processes.started.count("worker-0") == 2


def test_a_killed_server_resumes_if_there_is_something_to_resume_from(make: Make, tmp_path: Path) -> None:
    supervisor, processes = make()
    processes.exits.append(Exit("server", -9))
    assert supervisor.step()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "update-00000001.safetensors").touch()
    processes.exits.append(Exit("server", -9))
    assert supervisor.step()
    assert processes.resumed == [False, False, True]


def test_a_server_that_fails_is_not_started_again_and_its_reason_is_told(make: Make, tmp_path: Path) -> None:
    supervisor, processes = make()
    (tmp_path / "summary.json").write_text('{"reason": "failed", "reason_text": "diverged: far too far"}')
    processes.exits.append(Exit("server", 1))
    assert not supervisor.step()
    processes.running.clear()
    with pytest.raises(RunFailed, match="diverged: far too far"):
        supervisor.finish()


def test_a_server_that_crashes_does_not_tell_the_reason_of_an_earlier_life(make: Make, tmp_path: Path) -> None:
    supervisor, processes = make()
    (tmp_path / "summary.json").write_text('{"reason": "interrupted", "reason_text": "stopped by SIGTERM"}')
    processes.exits.append(Exit("server", 1))
    assert not supervisor.step()
    processes.running.clear()
    with pytest.raises(RunFailed, match=r"see logs/server\.log"):
        supervisor.finish()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_by_way_of_the_server(number: signal.Signals, make: Make) -> None:
    supervisor, processes = make()
    with supervisor.signals():
        signal.raise_signal(number)
        supervisor.step()
    assert processes.signals == [("server", signal.SIGTERM)]
    processes.running.clear()
    with pytest.raises(Interrupted):
        supervisor.finish()


def test_a_second_signal_kills(make: Make) -> None:
    supervisor, processes = make()
    with supervisor.signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        processes.exits.clear()
        supervisor._deal_with_signals()
        processes.exits.clear()
        assert not supervisor.step()
    assert [number for _, number in processes.signals] == [signal.SIGTERM, signal.SIGKILL]
