"""Starts a run's computing processes by forking one that has imported torch already: seconds instead of minutes.

Sixteen interpreters that each import torch keep two cores busy for half a minute and hold sixteen copies of it.
The nursery is one child process that imports it once; it forks a child for each request, before any thread, any
CUDA context or any of the user's code exists in it. Requests and answers are lines of JSON on its standard input
and output: {"spawn": name, ...} and {"signal": number, "name": ...} in, {"started": name, "pid": ..} and
{"exited": name, "code": ..} out (a negative code is a signal). When its supervisor is gone it ends, and so do they.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 2.0


def die_with_parent(number: signal.Signals) -> None:
    """Ask the kernel for this signal when the parent dies, so that no process outlives its run (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def _tell(message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


def _child(request: dict[str, Any]) -> int:
    """The life of one forked process."""
    run_dir, name = Path(request["run_dir"]), request["spawn"]
    log = os.open(run_dir / "logs" / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    from launch import process
    from launch.experiment import load_experiment

    def run() -> int:
        experiment = load_experiment(run_dir)
        patience = experiment.launch.patience
        if request["role"] == "rehearsal":
            return process.rehearse(experiment)
        if request["role"] == "evaluator":
            return process.run_evaluator(experiment, request["connect"], patience)
        return process.run_worker(experiment, request["connect"], request["rank"], request["rank"], patience)

    return process.guarded(name, run_dir, run)


class _Nursery:
    """Forks, waits and tells."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._pending = b""

    def run(self) -> None:
        """Serve requests until the supervisor closes the pipe; then end what is left."""
        open_ = True
        while open_ or self._names:
            readable = select.select([0], [], [], 0.05)[0] if open_ else []
            if readable:
                data = os.read(0, 1 << 16)
                open_ = bool(data)
                self._take(data)
            if not open_:
                self._end_all()
            self._reap()

    def _take(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "spawn" in request:
                self._spawn(request)
            else:
                for pid, name in self._names.items():
                    if name == request["name"]:
                        os.kill(pid, request["signal"])

    def _spawn(self, request: dict[str, Any]) -> None:
        sys.stdout.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                die_with_parent(signal.SIGKILL)
                if os.getppid() == parent:
                    code = _child(request)
            except BaseException:  # noqa: BLE001 (the end of a forked process: nothing may unwind into the nursery)
                import traceback

                traceback.print_exc()
            finally:
                with contextlib.suppress(OSError, ValueError):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        self._names[pid] = request["spawn"]
        _tell({"started": request["spawn"], "pid": pid})

    def _reap(self) -> None:
        while self._names:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _tell({"exited": self._names.pop(pid), "code": os.waitstatus_to_exitcode(status)})

    def _end_all(self) -> None:
        for number, seconds in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, _GRACE_SECONDS)):
            for pid in self._names:
                os.kill(pid, number)
            until = time.monotonic() + seconds
            while self._names and time.monotonic() < until:
                self._reap()
                time.sleep(0.02)


def main() -> None:
    """Import what every child needs, then serve."""
    die_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
    import launch.process  # noqa: F401 (imported here once, for all children)

    _Nursery().run()


if __name__ == "__main__":
    main()
