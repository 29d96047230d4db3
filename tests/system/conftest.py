"""What the system tests share: the real command as a process, and waiting for conditions instead of for time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from launch.rundir import RunDir, read_rows, read_summary

Found = TypeVar("Found")
ROOT = Path(__file__).parent.parent.parent
_MARGIN = 60.0
"""Seconds that anything may take on a busy machine before it counts as hung."""


class Program:
    """A `yfps` command as a process of its own, with everything it starts."""

    def __init__(self, arguments: tuple[object, ...], folder: Path, environment: dict[str, str]) -> None:
        self._out, self._err = folder / f"{time.monotonic_ns()}.out", folder / f"{time.monotonic_ns()}.err"
        inherited = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = psutil.Popen(
                [sys.executable, "-m", "launch.cli", *map(str, arguments)],
                cwd=folder,
                env={**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._seen: set[psutil.Process] = set()

    @property
    def out(self) -> str:
        """What it has written to standard output."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it has written to standard error."""
        return self._err.read_text()

    def until(self, condition: Callable[[], Found], seconds: float = _MARGIN) -> Found:
        """What `condition` returns, once that is something; fails when the program ends before, or time runs out."""
        deadline = time.monotonic() + seconds
        while True:
            over = self.process.poll() is not None
            if found := condition():
                return found
            if over or time.monotonic() > deadline:
                pytest.fail(f"{'ended' if over else 'waited'} without it:\n{self.out[-3000:]}\n{self.err[-3000:]}")
            self.tree()
            time.sleep(0.02)

    def code(self, seconds: float = _MARGIN) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(seconds)
        except psutil.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s:\n{self.out[-3000:]}\n{self.err[-3000:]}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal, as Ctrl-C does: to all of the terminal's foreground processes."""
        os.killpg(self.process.pid, number)

    def tree(self) -> list[psutil.Process]:
        """The processes it has started that still run, also those whose parent is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen.update(self.process.children(recursive=True))
        return [p for p in self._seen if _runs(p)]

    def child(self, module: str) -> psutil.Process:
        """The process it started that runs `python -m module`."""
        return next(p for p in self.process.children() if module in p.cmdline())

    def end(self) -> None:
        """Kill whatever is left of it."""
        for process in [*self.tree(), self.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(10)


def _runs(process: psutil.Process) -> bool:
    """Whether a process has neither ended nor become a zombie; it may end while it is asked."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


Start = Callable[..., Program]


@pytest.fixture(scope="session")
def program() -> type[Program]:
    """For fixtures that outlive a test."""
    return Program


@pytest.fixture
def shared_memory() -> Iterator[Path]:
    """A folder of a test's own in shared memory, which must be empty at the end."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="test-"))
    yield folder
    left = list(folder.iterdir())
    shutil.rmtree(folder)
    assert not left


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command in a folder of its own (`in_`); it is killed with the test."""
    programs = []

    def start_(*arguments: object, in_: Path = tmp_path, **environment: str) -> Program:
        programs.append(Program(arguments, in_, environment))
        return programs[-1]

    yield start_
    for program in programs:
        program.end()


@pytest.fixture
def yfps(start: Start) -> Callable[..., Program]:
    """Run a command to its end."""

    def run(*arguments: object, **options: Any) -> Program:
        program = start(*arguments, **options)
        program.code()
        return program

    return run


SLOW_TASK = '''
    """Digits, as fast as one says."""
    import dataclasses
    import time
    from worker.zoo.digits import mlp

    def slow(seconds=0.02, hidden=16, layers=1):
        task = mlp(hidden=hidden, layers=layers, batch=16)
        def loss(module, batch):
            time.sleep(seconds)
            return task.loss(module, batch)
        return dataclasses.replace(task, loss=loss)
'''
SLOW_EXPERIMENT = """
    [task]
    function = "my_task.py:slow"
    [train]
    updates = 300
    workers = 4
    seed = 3
    [rule]
    name = "momentum_sgd"
    [tuner]
    target = "constant"
    learning_rate = 0.02
    momentum = 0.5
    loop = "closed"
    [evaluate]
    every = 0
    [checkpoint]
    every = 50
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """An experiment with a task of the user's own, slow enough to interfere with: slow.toml and my_task.py."""
    (tmp_path / "my_task.py").write_text(textwrap.dedent(SLOW_TASK))
    (tmp_path / "slow.toml").write_text(textwrap.dedent(SLOW_EXPERIMENT))
    return tmp_path / "slow.toml"


class Records:
    """What a run has written down so far, read anew each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places = RunDir(folder)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of metrics, arrivals, evaluations or events."""
        return list(read_rows(getattr(self._places, name)))

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [row for row in self.rows("events") if row["kind"] == kind]

    def summary(self) -> dict[str, Any]:
        """summary.json, {} before the end."""
        return read_summary(self._places.summary)

    def addresses(self) -> list[str]:
        """Where the server can be reached; nothing before it can."""
        try:
            told = json.loads((self.folder / "server.json").read_text())
        except (FileNotFoundError, ValueError):
            return []
        return list(told["addresses"]) if psutil.pid_exists(told["pid"]) else []

    def server(self) -> int:
        """Process number of the server's latest life."""
        return int(json.loads((self.folder / "server.json").read_text())["pid"])

    def updates(self) -> int:
        """The last update that was written down."""
        try:
            end = self._places.metrics.read_bytes()[-4000:]
        except FileNotFoundError:
            return 0
        found = re.findall(rb'^{"update":(\d+),.*}$', end, re.MULTILINE)
        return int(found[-1]) if found else 0

    def workers(self) -> dict[int, int]:
        """Worker number -> process number of its latest life."""
        told = ((row["worker"], re.search(r" from [^:]*:(\d+)", row["text"])) for row in self.events("joined"))
        return {worker: int(found[1]) for worker, found in told if found and worker is not None}

    def unique_arrivals(self) -> bool:
        """No push was applied twice."""
        pushes = [(row["worker"], row["step"]) for row in self.rows("arrivals")]
        return len(pushes) == len(set(pushes))


@pytest.fixture
def records() -> type[Records]:
    """How tests read a run's folder."""
    return Records
