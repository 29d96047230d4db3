"""Messages that no client of ours sends: each gets an answer that says why, and nobody else notices."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from psserver import wire
from psserver.errors import LayoutError, RefusedError
from psserver.wire import (
    PROTOCOL_VERSION,
    Alive,
    Goodbye,
    Heartbeat,
    Hello,
    Parameters,
    Pull,
    Push,
    Refusal,
    Report,
    Slot,
    Status,
    Stop,
    Watch,
    Welcome,
)
from tests.psserver.running import SIZE, Running, Stranger, ipc, until
from worker import ParameterClient
from worker.connection import Watcher

HELLO = Hello("worker", "L", SIZE, 0, None, "stranger", "elsewhere", 1, False)
ONES = np.ones(SIZE, np.float32)


class Pushing:
    """An honest client that pushes all the while, in a thread."""

    def __init__(self, address: str) -> None:
        self.pushes = self.rejected = 0
        self._address = address
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with ParameterClient(self._address, SIZE, layout="L") as client:
            snapshot = client.pull()
            while not self._enough.is_set():
                snapshot = client.push(snapshot, 1.0, ONES)
                self.pushes, self.rejected = client.pushes, client.rejected
                time.sleep(0.001)

    def __enter__(self) -> Pushing:
        self._thread.start()
        until(lambda: self.pushes)
        return self

    def __exit__(self, *error: object) -> None:
        before = self.pushes
        until(lambda: self.pushes > before + 5 or not self._thread.is_alive())
        self._enough.set()
        self._thread.join()
        assert self.pushes > before, "the honest client goes on"
        assert not self.rejected


@pytest.fixture
def running() -> Iterator[Running]:
    with Running("tcp://127.0.0.1:*", workers=2, shared_memory=False) as running, Pushing(running.address):
        yield running


@pytest.fixture
def stranger(running: Running) -> Iterator[Stranger]:
    stranger = Stranger(running.address)
    yield stranger
    stranger.close()


def header(*entries: Any) -> bytes:
    packed: bytes = msgpack.packb(entries)
    return packed


BAD = [
    [b""],
    [b"", b""],
    [b"garbage"],
    [b"\xc1" * 100],
    [b"\x91" * 100_000],
    [os.urandom(1000)],
    [header()],
    [header(1)],
    [header(PROTOCOL_VERSION, "Nonsense", 1, {})],
    [header(PROTOCOL_VERSION, "Pull", -1, {})],
    [header(PROTOCOL_VERSION, "Pull", 1, {"more": 1})],
    [header(PROTOCOL_VERSION, "Pull", 1, {b"more": 1})],
    [header(PROTOCOL_VERSION, "Pull", 1, []), b"", b""],
    [header(PROTOCOL_VERSION, "Heartbeat", 1, {"member": 7})],
    [header(PROTOCOL_VERSION, "Heartbeat", 1, {"member": msgpack.Timestamp(0)})],
    [header(PROTOCOL_VERSION, "Push", 1, {"gradient": ["float32", 1 << 60]}), b"1234"],
    [header(PROTOCOL_VERSION, "Push", 1, {"gradient": ["slot", "../../etc/passwd"]})],
    wire.encode(Parameters(1, False, ONES, None), 1),
    wire.encode(Stop("done", ""), 1),
    wire.encode(Push("s", 1, 0, 1.0, ONES[:-1], None), 1),
    wire.encode(Push("s", 1, 0, 1.0, ONES, ONES), 1),
    [*wire.encode(Pull(), 1), b"one too many"],
]


@pytest.mark.parametrize("transport", ["frames", "slots"])
def test_whatever_is_no_request_is_refused_with_a_sentence(transport: str) -> None:
    shared = transport == "slots"
    with Running("tcp://127.0.0.1:*", workers=2, shared_memory=shared) as running, Pushing(running.address):
        stranger = Stranger(running.address)
        try:
            for frames in BAD:
                reply = stranger.say(*frames)
                assert isinstance(reply, Refusal), frames[0][:50]
                assert (reply.code, "expected" in reply.text) == ("wire", True)
        finally:
            stranger.close()


def test_another_version_of_the_protocol_is_named(stranger: Stranger) -> None:
    reply = stranger.say(header(PROTOCOL_VERSION + 1, "Hello", 1, {}))
    assert f"expected protocol {PROTOCOL_VERSION}, got {PROTOCOL_VERSION + 1}" in reply.text


def test_an_oversize_message_costs_its_sender_the_connection(stranger: Stranger) -> None:
    stranger.socket.send(b"x" * (4 * SIZE + (1 << 20) + 1))
    assert stranger.hear(0.3) is None
    assert isinstance(stranger.tell(Watch()), Status), "it may connect again and say something sensible"


def test_bytes_that_are_not_even_zeromq_are_survived(running: Running) -> None:
    host, port = running.address.removeprefix("tcp://").split(":")
    for content in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(100), b"\xff" + bytes(63), b""):
        with socket.create_connection((host, int(port))) as plain:
            plain.sendall(content)


def test_a_message_cut_off_in_its_middle_is_dropped(running: Running) -> None:
    stranger = Stranger(running.address)
    stranger.tell(HELLO)
    stranger.socket.send(wire.encode(Push(running.server.session, 1, 0, 1.0, ONES, None))[0], zmq.SNDMORE)
    stranger.close()


def test_another_model_is_told_which_one_is_trained(running: Running) -> None:
    with pytest.raises(LayoutError, match=rf"expected {SIZE} parameters and 0 buffer values \(layout L\), got 7 and 1"):
        ParameterClient(running.address, 7, buffer_size=1, layout="M").__enter__()
    with pytest.raises(LayoutError, match=r"layout other"):
        ParameterClient(running.address, SIZE, layout="other").__enter__()


def test_a_rank_that_is_taken_is_refused_once_patience_ends(running: Running) -> None:
    with pytest.raises(RefusedError, match=r"rank: expected a free one, got 0, which .*:\d+ has"):
        ParameterClient(running.address, SIZE, rank=0, patience=0.2).__enter__()


def test_a_gradient_that_is_not_finite_is_counted_on_both_sides(running: Running) -> None:
    with ParameterClient(running.address, SIZE) as client:
        snapshot = client.pull()
        for bad, loss in ((np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan)):
            gradient = ONES.copy()
            gradient[-1] = bad
            snapshot = client.push(snapshot, loss, gradient)
            assert np.isfinite(snapshot.parameters).all()
        assert client.rejected == running.server.journal.progress.rejected == 3


def test_one_worker_whose_gradients_are_never_finite_does_not_end_the_run(running: Running) -> None:
    with ParameterClient(running.address, SIZE) as client:
        snapshot = client.pull()
        for _ in range(50):
            snapshot = client.push(snapshot, 1.0, np.full(SIZE, np.nan, np.float32))
    assert running.server.phase == "training"


def test_roles_are_kept(running: Running, stranger: Stranger) -> None:
    assert isinstance(stranger.tell(dataclasses.replace(HELLO, role="evaluator")), Welcome)
    push = Push(running.server.session, 1, 0, 1.0, ONES, None)
    assert stranger.tell(push) == Refusal("wire", "message: expected what a evaluator says, got Push")
    assert isinstance(stranger.tell(HELLO), Welcome)
    assert isinstance(stranger.tell(Report(0, {"loss": 1.0})), Refusal)
    assert running.rows.evaluations == []


def test_who_comes_again_as_another_leaves_nothing_behind(running: Running, stranger: Stranger) -> None:
    for rank in (5, 6, 7):
        assert stranger.tell(dataclasses.replace(HELLO, rank=rank)).worker == rank
        stranger.tell(Pull())
    states = {m.number: m.state for m in running.server.members.workers}
    assert (states[5], states[6], states[7]) == ("left", "left", "computing")


def test_a_slot_that_is_not_the_senders_own_is_refused(running: Running, stranger: Stranger) -> None:
    stranger.tell(HELLO)
    reply = stranger.tell(Push(running.server.session, 1, 0, 1.0, Slot("yfps-" + "0" * 32), None))
    assert "expected this worker's own slot" in reply.text


def test_a_heartbeat_of_nobody_is_answered_that_it_is_unknown(running: Running, stranger: Stranger) -> None:
    reply = stranger.tell(Heartbeat("nobody"))
    assert isinstance(reply, Alive)
    assert not reply.known


def test_the_longest_names_and_texts_do_not_break_the_display(running: Running, stranger: Stranger) -> None:
    stranger.tell(dataclasses.replace(HELLO, host="h" * 200, pid=2**64 - 1))
    stranger.tell(Goodbye("failed", "x" * 20_000, 0))
    watcher = Watcher(running.address)
    seen: list[Status | None] = []
    try:
        until(lambda: seen.append(watcher.poll()) or seen[-1])  # type: ignore[func-returns-value]
    finally:
        watcher.close()
    assert seen[-1] is not None
    assert any(event.endswith("x") for event in seen[-1].events)


def test_a_report_of_the_largest_numbers_is_survived(running: Running, stranger: Stranger) -> None:
    stranger.tell(dataclasses.replace(HELLO, role="evaluator"))
    stranger.tell(Report(2**64 - 1, {"accuracy": 0.5}))
    assert running.rows.evaluations == [], "that version does not exist"
    stranger.tell(Report(0, {"update": float("nan"), "seconds": float("inf"), "accuracy": float("nan")}))
    assert running.server.journal.progress.best is None


def test_who_asks_without_ever_listening_costs_little(running: Running, stranger: Stranger) -> None:
    stranger.tell(HELLO)
    for sequence in range(1000):
        stranger.socket.send_multipart(wire.encode(Pull(), sequence))
    until(lambda: running.server.members.workers[1].holding is not None)
    time.sleep(0.3)
    assert running.server.trajectory.slots < 100


def test_a_version_still_on_its_way_is_not_overwritten_though_its_receiver_asks_again() -> None:
    size = 2_000_000  # more than the sockets' buffers take
    with Running("tcp://127.0.0.1:*", size=size, workers=2, shared_memory=False) as running:
        slow = Stranger(running.address, queue=1)
        slow.tell(dataclasses.replace(HELLO, size=size))
        member = running.server.members.workers[0]
        with ParameterClient(running.address, size) as client:
            client.gradient[:] = 1.0
            snapshot = client.pull()
            for sequence in range(4):
                slow.socket.send_multipart(wire.encode(Pull(), sequence))
                until(partial(lambda version: member.holding == version, snapshot.version))
                for _ in range(8):
                    snapshot = client.push(snapshot, 1.0)
        for version in (0, 8, 16, 24):
            reply = slow.hear(10)
            assert isinstance(reply, Parameters)
            assert isinstance(reply.values, np.ndarray)
            assert (reply.version, np.ptp(reply.values)) == (version, 0), "every version is the same everywhere"
        slow.close()


def test_a_flood_does_not_hide_that_the_run_is_to_stop() -> None:
    with ipc() as path, Running(path, workers=2) as running:
        enough = threading.Event()

        def flood() -> None:
            stranger = Stranger(running.address)
            while not enough.is_set():
                with suppress(zmq.Again):
                    stranger.socket.send(b"garbage", zmq.NOBLOCK)
            stranger.close()

        threads = [threading.Thread(target=flood) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        running.stop()
        try:
            assert running.ended(10)["reason"] == "interrupted"
        finally:
            enough.set()
            for thread in threads:
                thread.join()
