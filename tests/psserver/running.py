"""Servers that run: in a thread of the test, or as a process that can be stopped, killed and started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zmq

from psserver import (
    CheckpointOptions,
    Checkpoints,
    Model,
    ParameterServer,
    Plan,
    RuleOptions,
    RunRecord,
    ServerOptions,
    latest_checkpoint,
    load_checkpoint,
    serve,
    wire,
)
from psserver.metrics import Record
from tests.psserver.conftest import Rows
from tuner import TunerOptions, build

ROOT = Path(__file__).parent.parent.parent
SIZE = 20_000
"""More than 64 KiB, so that frames are sent without a copy."""
LEARNING_RATE, MOMENTUM = 0.125, 0.5


def new_server(
    *,
    size: int = SIZE,
    updates: int = 1_000_000,
    workers: int = 1,
    record: Record | None = None,
    resume: dict[str, Any] | None = None,
    **options: Any,
) -> ParameterServer:
    """A server of `size` parameters, all 0, moved by SGD with constant rates."""
    tuner = TunerOptions(target="constant", learning_rate=LEARNING_RATE, momentum=MOMENTUM, loop="open", sample=0)
    return ParameterServer(
        Model(np.zeros(size, np.float32), np.zeros(0, np.float32), "L"),
        Plan(updates, workers, 7),
        build(tuner, size, updates, 7),
        RuleOptions("momentum_sgd"),
        ServerOptions(**options),
        record,
        resume=resume,
    )


class Running:
    """`serve` in a thread. `with` stops it, unless it has ended by itself, and raises what it raised."""

    def __init__(self, bind: str | Sequence[str], **options: Any) -> None:
        self.rows = Rows()
        self.server = new_server(record=self.rows, **options)
        self.addresses: list[str] = []
        self.summary: dict[str, Any] = {}
        self._bind, self._stop = bind, ""
        self._error: BaseException | None = None
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, name="server")

    def _run(self) -> None:
        try:
            self.summary = serve(self.server, self._bind, stopping=lambda: self._stop or None, bound=self._ready)
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that waits)
            self._error = error
        self._bound.set()

    def _ready(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self._bound.set()

    @property
    def address(self) -> str:
        """The first address it is bound to."""
        return self.addresses[0]

    def __enter__(self) -> Running:
        self._thread.start()
        self._bound.wait()
        if self._error is not None:
            self.ended()
        return self

    def stop(self, text: str = "stopped by the test") -> None:
        """End the run from outside."""
        self._stop = text

    def ended(self, seconds: float = 20.0) -> dict[str, Any]:
        """Its summary, once it has ended."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the server goes on, at\n{self._where()}"
        if self._error is not None:
            raise self._error
        return self.summary

    def _where(self) -> str:
        """The stack of its thread."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame else "no frame"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None:
            self.ended()
        else:
            self._thread.join(20)


class ServerProcess:
    """A server in a process of its own, which saves every 5 updates in `folder` and continues from there."""

    def __init__(self, folder: Path, bind: str, **options: Any) -> None:
        self.folder = folder
        script = [sys.executable, "-m", "tests.psserver.running", str(folder), bind, json.dumps(options)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(script, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, "the server did not start"

    def __enter__(self) -> ServerProcess:
        return self

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def summary(self) -> dict[str, Any]:
        """Its summary, once it has ended by itself."""
        self.process.wait(20)
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found

    def resident(self) -> int:
        """Bytes of its memory that are its own: what it shares with workers has its fixed place."""
        fields = Path(f"/proc/{self.process.pid}/status").read_text().split("RssAnon:")[1].split()
        return int(fields[0]) * 1024


class Stranger:
    """A socket that says what it likes."""

    def __init__(self, address: str, queue: int = 1000) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.RCVHWM, queue)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(address)
        self._sequence = 0

    def say(self, *frames: Any) -> Any:
        """Send frames as they are; the answer, None if there is none within a second."""
        self.socket.send_multipart(frames)
        return self.hear()

    def tell(self, message: wire.Message) -> Any:
        """Send a message as it should be sent."""
        self._sequence += 1
        return self.say(*wire.encode(message, self._sequence))

    def hear(self, seconds: float = 1.0) -> Any:
        if not self.socket.poll(1000 * seconds):
            return None
        return wire.decode(self.socket.recv_multipart())[0]

    def close(self) -> None:
        self.socket.close()
        self._context.term()


@contextmanager
def ipc() -> Iterator[str]:
    """An ipc address in a folder with a short name."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield f"ipc://{folder}/s"


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def together(*work: Callable[[], object]) -> None:
    """Run in threads at once; raise what one of them raised."""
    errors: list[BaseException] = []

    def run(part: Callable[[], object]) -> None:
        try:
            part()
        except BaseException as error:  # noqa: BLE001 (raised again below)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(part,)) for part in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


def _main(folder: Path, bind: str, options: dict[str, Any]) -> None:
    every = options.pop("every", 5)
    found = latest_checkpoint(folder)
    state = load_checkpoint(found) if found else None
    record = RunRecord(folder, state["version"] if state else None)
    server = new_server(record=record, resume=state, **options)
    checkpoints = Checkpoints(folder, CheckpointOptions(every=every), 0)
    serve(server, bind, checkpoints=checkpoints, bound=lambda addresses: print(addresses[0], flush=True))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
