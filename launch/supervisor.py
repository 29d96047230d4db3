"""Watches over the processes of a run: what to do when one ends, and how the whole run ends."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psserver.errors
from launch.experiment import Experiment
from launch.processes import Exit, Processes
from psserver.errors import UserError, YellowFinError

_STEP_SECONDS = 0.05
_BACKOFF_SECONDS = 1.0
_STOP_SECONDS = 4.5
_LEAST_ROOM = 1 << 20  # bytes, below which a failure without a word is the disk's
_MOST_TEXT = 4_000


class RunFailed(YellowFinError):
    """A run ended without reaching its goal; the sentence says why."""


class Interrupted(KeyboardInterrupt):
    """The user stopped the run; it was saved."""


@dataclass
class _Restarts:
    left: int
    due: float | None = None
    count: int = 0


@dataclass
class Supervisor:
    """Starts a run's processes in order, restarts what dies, and ends all when the server has ended.

    Order: server and rehearsal side by side, then workers and evaluator. A task that fails before the first update
    ends the run with the user's traceback; later, its worker counts as lost and is started again.
    """

    experiment: Experiment
    processes: Processes
    bind: list[str]
    resume: bool
    workers: int
    say: Callable[[str], None] = print
    addresses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Prepare the counts of restarts."""
        launch = self.experiment.launch
        names = ["evaluator", *(f"worker-{k}" for k in range(self.workers))]
        self._restarts = {name: _Restarts(launch.worker_restarts) for name in names}
        self._restarts["server"] = _Restarts(launch.server_restarts)
        self._signals: list[int] = []
        self._stopping_since: float | None = None
        self._last_failure = ""
        self._finished: int | None = None
        self.updates_seen = 0

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While this lasts, Ctrl-C and SIGTERM stop the run: the first gently, the second at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, lambda got, frame: self._signals.append(got))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self) -> None:
        """Bring everything up; returns once workers are being started, or raises why that is not possible."""
        self.processes.start_server(self.bind, self.resume)
        if self.workers:
            self.processes.spawn("rehearsal", "rehearsal")
        while self._finished is None and not self._ready():
            self.step()
            time.sleep(_STEP_SECONDS)
        if self._finished is not None:
            self.finish()
            raise RunFailed(self._last_failure or "the server ended before any worker could join")
        if self.workers:
            for k in range(self.workers):
                self.processes.spawn(f"worker-{k}", "worker", rank=k, connect=self.addresses[0])
        if self.experiment.launch.evaluator:
            self.processes.spawn("evaluator", "evaluator", connect=self.addresses[0])

    def step(self) -> bool:
        """Deal with everything that happened; False when the run is over."""
        self._deal_with_signals()
        for exit_ in self.processes.ended():
            self._deal_with(exit_)
        if self._finished is None:
            self._restart_what_is_due()
        return self._finished is None

    def finish(self) -> None:
        """Wait for workers and evaluator to say goodbye. Raises Interrupted, or RunFailed with the reason."""
        until = time.monotonic() + (0.5 if self._stopping_since is not None else 5.0)
        while self.processes.running and time.monotonic() < until:
            self.processes.ended()
            time.sleep(0.02)
        if self._stopping_since is not None:
            raise Interrupted
        if self._finished:
            raise RunFailed(self._last_failure or f"the server ended with exit code {self._finished}")

    def _ready(self) -> bool:
        addresses = self.processes.server_addresses()
        if addresses is not None:
            self.addresses = addresses
        return addresses is not None and "rehearsal" not in self.processes.running

    def _deal_with_signals(self) -> None:
        if not self._signals:
            return
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()
            self.say("stopping: saving a checkpoint (once more kills at once)")
            self.processes.signal("server", signal.SIGTERM)
            if "server" not in self.processes.running:
                self._finished = 1
        elif len(self._signals) > 1 or time.monotonic() - self._stopping_since > _STOP_SECONDS:
            self.say("killing all processes")
            self.processes.signal("server", signal.SIGKILL)
            self._finished = 1

    def _deal_with(self, exit_: Exit) -> None:
        if exit_.name == "server":
            self._server_ended(exit_)
        elif exit_.name == "nursery":
            self._fail(f"the process that starts workers {exit_.how}; see logs/nursery.log")
        elif exit_.code != 0 and self._finished is None and self._stopping_since is None:
            self._member_failed(exit_)

    def _server_ended(self, exit_: Exit) -> None:
        if exit_.code == 0 or self._stopping_since is not None:
            self._finished = 0
            return
        said = self.processes.failure("server")
        if exit_.code > 0:
            self._last_failure = said["text"] if said else self._reason_in_summary()
            self._raise_user_error("server")
            self._finished = exit_.code
            return
        self._schedule("server", f"the server {exit_.how}")
        if self._restarts["server"].due is None:
            self._last_failure = f"the server {exit_.how} too often; see logs/server.log"
            self._finished = 1

    def _member_failed(self, exit_: Exit) -> None:
        said = self.processes.failure(exit_.name)
        what = f"{exit_.name} {exit_.how}" + (f": {said['text']}" if said else "")
        self._last_failure = f"{what}; see logs/{exit_.name}.log"
        if exit_.name == "rehearsal" or (exit_.code == UserError.exit_code and not self.updates_seen):
            self._raise_user_error(exit_.name)
            self._fail(self._last_failure)
            return
        self._schedule(exit_.name, what)
        alive = [name for name in self.processes.running if name.startswith("worker-")]
        coming = [name for name, r in self._restarts.items() if name.startswith("worker-") and r.due is not None]
        if self.workers and not alive and not coming:
            self._fail(f"no worker is left; the last one: {self._last_failure}")

    def _fail(self, text: str) -> None:
        self._last_failure = text
        self.processes.signal("server", signal.SIGTERM)
        self._finished = 1

    def _schedule(self, name: str, what: str) -> None:
        restarts = self._restarts[name]
        restarts.due = None
        if restarts.left > 0:
            restarts.left -= 1
            restarts.due = time.monotonic() + _BACKOFF_SECONDS * 2**restarts.count
            restarts.count += 1
            self.say(f"{what}; starting it again in {restarts.due - time.monotonic():.0f} s")
        else:
            kind = "server" if name == "server" else "worker"
            self.say(f"{what}; not started again (launch.{kind}_restarts)")

    def _restart_what_is_due(self) -> None:
        now = time.monotonic()
        for name, restarts in self._restarts.items():
            if restarts.due is None or now < restarts.due or self._stopping_since is not None:
                continue
            restarts.due = None
            if name == "server":
                resumable = any((self.processes.run_dir / "checkpoints").glob("*.safetensors"))
                self.processes.start_server(self.addresses or self.bind, resumable)
            elif name == "evaluator":
                self.processes.spawn(name, "evaluator", connect=self.addresses[0])
            else:
                rank = int(name.removeprefix("worker-"))
                self.processes.spawn(name, "worker", rank=rank, connect=self.addresses[0])

    def _raise_user_error(self, name: str) -> None:
        """Show the user's own traceback, then raise what the process raised."""
        said = self.processes.failure(name)
        if said is None:
            return
        if said["trace"]:
            print(said["trace"], file=sys.stderr)
        kind: Any = getattr(psserver.errors, said["kind"], RunFailed)
        raise kind(said["text"])

    def _reason_in_summary(self) -> str:
        from launch.rundir import RunDir, read_summary

        summary = read_summary(RunDir(self.processes.run_dir).summary)
        if summary.get("reason") != "failed":
            if shutil.disk_usage(self.processes.run_dir).free < _LEAST_ROOM:
                where = self.processes.run_dir
                return f"the server failed, and no room is left in {where}: free some, then continue with --resume"
            return "the server failed; see logs/server.log"
        return str(summary["reason_text"])[:_MOST_TEXT]
