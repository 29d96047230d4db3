"""The supervisor's hold on the processes of a run: start, notice the end of, and stop them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Exit:
    """A process ended. code: its exit code, negative for the signal that killed it."""

    name: str
    code: int

    @property
    def how(self) -> str:
        """As people read it."""
        if self.code < 0:
            return f"was killed by {signal.Signals(-self.code).name}"
        return f"ended with exit code {self.code}"


class Processes:
    """The server, as a process of its own, and workers and evaluator, forked by a nursery (see `launch.nursery`)."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.running: dict[str, int] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._pending = b""
        self._environment = {
            **os.environ,
            "OMP_WAIT_POLICY": "passive",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
        log = (run_dir / "logs" / "nursery.log").open("ab")
        with log:
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", "launch.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,  # a request that finds no reader must not wait in a buffer and fail again at close
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def start_server(self, bind: list[str], resume: bool) -> None:
        """Start the server process; it says in server.json when it is ready."""
        (self.run_dir / "server.json").unlink(missing_ok=True)
        arguments = [sys.executable, "-m", "launch.server_process", str(os.getpid()), str(self.run_dir), *bind]
        with (self.run_dir / "logs" / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [*arguments, "--resume"] if resume else arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Vectors that a checkpoint borrows go back to the system, instead of splitting up the heap for good.
                env={"MALLOC_MMAP_THRESHOLD_": "1048576", **self._environment},
                start_new_session=True,
            )
        self.running["server"] = self._server.pid

    def server_addresses(self) -> list[str] | None:
        """Where the server can be reached, None as long as it cannot."""
        try:
            told = json.loads((self.run_dir / "server.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        addresses: list[str] = told["addresses"]
        return addresses if self._server is not None and told["pid"] == self._server.pid else None

    def spawn(self, name: str, role: str, rank: int = 0, connect: str = "") -> None:
        """Start a worker, the evaluator or the rehearsal."""
        (self.run_dir / "logs" / f"{name}.failure").unlink(missing_ok=True)
        self.running[name] = 0
        self._ask({"spawn": name, "role": role, "rank": rank, "connect": connect, "run_dir": str(self.run_dir)})

    def ended(self) -> list[Exit]:
        """Processes that ended since the last call."""
        exits = []
        if self._server is not None and (code := self._server.poll()) is not None:
            self._server = None
            exits.append(Exit("server", code))
        while select.select([self._out], [], [], 0)[0]:
            data = os.read(self._out, 1 << 16)
            if not data:
                exits += [Exit(name, -signal.SIGKILL) for name in self.running if name != "server"]
                exits.append(Exit("nursery", self._nursery.wait()))
                break
            *lines, self._pending = (self._pending + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "started" in message:
                    self.running[message["started"]] = message["pid"]
                else:
                    exits.append(Exit(message["exited"], message["code"]))
        for exit_ in exits:
            self.running.pop(exit_.name, None)
        return exits

    def failure(self, name: str) -> dict[str, Any] | None:
        """What the process itself said about its end: kind, text, trace, exit_code."""
        try:
            said: dict[str, Any] = json.loads((self.run_dir / "logs" / f"{name}.failure").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return said

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one process; none when it has ended."""
        if name == "server":
            if self._server is not None:
                self._server.send_signal(number)
        elif name in self.running:
            self._ask({"name": name, "signal": int(number)})

    def close(self, patience: float = 3.0) -> None:
        """End everything: gently, and after `patience` seconds by force. Nothing is left when this returns."""
        if self._nursery.stdin is not None:
            self._nursery.stdin.close()
        for process in [self._server, self._nursery]:
            if process is None:
                continue
            if process is self._server:
                process.terminate()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._nursery.stdout is not None:
            self._nursery.stdout.close()
        self._server = None
        for pid in self.running.values():
            _kill_orphan(pid)

    @property
    def _out(self) -> int:
        if self._nursery.stdout is None:
            raise RuntimeError("the nursery has no standard output")
        return self._nursery.stdout.fileno()

    def _ask(self, request: dict[str, Any]) -> None:
        if self._nursery.stdin is None:
            raise RuntimeError("the nursery has no standard input")
        try:
            self._nursery.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            return  # it is gone; `ended` says so


def _kill_orphan(pid: int) -> None:
    """End a forked process that stood still before it could ask to end with the nursery."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid) if pid else None
        if process is not None and "launch.nursery" in process.cmdline():
            process.kill()
