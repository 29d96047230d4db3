"""Servers that are killed, stopped and started again while their clients wait, and long runs that must not grow."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from psserver.errors import ServerLostError
from psserver.shared_memory import sweep
from psserver.wire import Refusal, Status, Watch
from tests.psserver.running import SIZE, Running, ServerProcess, Stranger, ipc, together, until
from worker import ParameterClient, RunOver

ONES = np.ones(SIZE, np.float32)


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture
def address() -> Iterator[str]:
    with ipc() as path:
        yield path
    sweep(Path("/dev/shm"))


class Trainer:
    """A client in a thread that trains until the run is over, whatever happens to the server."""

    def __init__(self, address: str, patience: float = 60.0) -> None:
        self.versions: list[int] = []
        self.error: Exception | None = None
        self._address, self._patience = address, patience
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with ParameterClient(self._address, SIZE, patience=self._patience) as client:
                snapshot = client.pull()
                while True:
                    snapshot = client.push(snapshot, 1.0, ONES)
                    self.versions.append(snapshot.version)
                    time.sleep(0.005)
        except (RunOver, ServerLostError) as error:
            self.error = error


@pytest.mark.parametrize("shared", [True, False])
def test_a_server_killed_and_started_again_is_waited_for_and_applies_nothing_twice(
    tmp_path: Path, address: str, shared: bool
) -> None:
    options = {"updates": 200, "workers": 2, "shared_memory": shared, "heartbeat_timeout": 1.0}
    with ServerProcess(tmp_path, address, **options) as first:
        trainers = [Trainer(address) for _ in range(2)]
        until(lambda: all(len(trainer.versions) > 20 for trainer in trainers))
        first.kill()
    time.sleep(0.3)
    assert all(trainer.thread.is_alive() for trainer in trainers)
    with ServerProcess(tmp_path, address, **options) as second:
        summary = second.summary()
    for trainer in trainers:
        trainer.thread.join()
        assert max(trainer.versions) > 150
    arrivals = [(row["worker"], row["step"]) for row in rows(tmp_path, "arrivals") if not row["refused"]]
    assert len(arrivals) == len(set(arrivals)) == summary["updates"] == 200
    assert [row["update"] for row in rows(tmp_path, "metrics")] == list(range(1, 201))
    texts = [row["text"] for row in rows(tmp_path, "events")]
    resumed = next(int(text.rpartition(" ")[2]) for text in texts if text.startswith("resumed at update"))
    assert resumed % 5 == 0
    stale = [text for text in texts if f"expected at most {resumed} of this life of the server" in text]
    assert summary["pushes_rejected"] - summary["pushes_rejected_after_the_end"] == len(stale) <= 2


def test_a_finished_run_that_is_resumed_has_nothing_more_to_do(address: str) -> None:
    with Running(address, updates=5) as running:
        Trainer(address).thread.join()
        running.ended()
    with Running(address, updates=5, resume=running.server.state_dict()) as again:
        summary = again.ended()
    assert (summary["updates"], summary["pushes_applied"], summary["reason"]) == (5, 5, "done")
    assert again.rows.rows == []


def test_a_silent_server_is_given_up_after_patience_and_one_that_wakes_up_has_lost_nobody(
    tmp_path: Path, address: str
) -> None:
    with ServerProcess(tmp_path, address, workers=2, heartbeat_timeout=1.0) as server:
        trainer = Trainer(address, patience=3.0)
        until(lambda: trainer.versions)
        with ParameterClient(address, SIZE, patience=0.6) as hasty:
            snapshot = hasty.pull()
            server.process.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            with pytest.raises(ServerLostError, match=rf"the server at {address} has been silent for \d s; gave up"):
                hasty.push(snapshot, 1.0, ONES)
            assert 0.5 < time.monotonic() - started < 5
            time.sleep(0.8)  # beyond the second after which a member that is silent is lost
            server.process.send_signal(signal.SIGCONT)
            before = len(trainer.versions)
            until(lambda: len(trainer.versions) > before + 50)
        assert not any(row["kind"] == "lost" for row in rows(tmp_path, "events"))
        server.kill()
        trainer.thread.join(10)
        assert isinstance(trainer.error, ServerLostError)


def test_memory_does_not_grow_under_ten_thousand_messages_of_garbage(tmp_path: Path, address: str) -> None:
    with ServerProcess(tmp_path, address) as server:
        stranger = Stranger(address)
        used = []
        for _ in range(2):
            for _ in range(10_000):
                stranger.socket.send(b"garbage" * 100)
                while stranger.socket.poll(0):
                    stranger.socket.recv_multipart()
            assert isinstance(stranger.tell(Watch()), Status | Refusal)
            used.append(server.resident())
        stranger.close()
    assert used[1] - used[0] < 2e6


def test_memory_stays_as_it_is_over_thousands_of_updates(tmp_path: Path, address: str) -> None:
    size, updates = 50_000, 3_000
    options = {"size": size, "updates": updates, "workers": 4, "every": 0, "shared_memory": False}
    with ServerProcess(tmp_path, address, **options) as server:
        used: list[int] = []

        def train() -> None:
            with ParameterClient(address, size) as client, suppress(RunOver):
                client.gradient[:] = 1e-3
                snapshot = client.pull()
                while True:
                    snapshot = client.push(snapshot, 1.0)
                    if snapshot.version > 500 and client.step % 20 == 0:
                        used.append(server.resident())

        together(*[train] * 4)
        assert server.summary()["updates"] == updates
    third = len(used) // 3
    assert median(used[-third:]) - median(used[:third]) < 2e6
