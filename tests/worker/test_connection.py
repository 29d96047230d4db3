"""Servers that cannot be reached, do not answer, or answer nonsense: an error in time, that says what is known."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq

import worker.connection
from psserver import wire
from psserver.errors import AddressError, ServerLostError, WireError
from psserver.wire import Alive, Noted, Parameters, Refusal, Stop, Welcome
from tests.psserver.running import SIZE, Running, ipc, until
from worker import ParameterClient, RunOver
from worker.connection import Pulse, Watcher
from worker.reach import why_unreachable

TCP = "tcp://127.0.0.1:*"
Answer = Callable[[wire.Message], wire.Message | list[bytes] | None]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Impostor:
    """A server that gives the answers it was told to."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.heard: list[wire.Message] = []
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind("tcp://127.0.0.1:*")
        self.address = self._socket.getsockopt(zmq.LAST_ENDPOINT).decode()  # type: ignore[union-attr]
        self._closing = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing:
            if not self._socket.poll(50):
                continue
            identity, *frames = self._socket.recv_multipart()
            message, sequence = wire.decode(frames)
            if isinstance(message, wire.Heartbeat):
                reply: wire.Message | list[bytes] | None = Alive("s", 0, True, False)
            else:
                self.heard.append(message)
                reply = self.answers.pop(0)(message) if self.answers else None
            if reply is not None:
                frames = reply if isinstance(reply, list) else wire.encode(reply, sequence)  # type: ignore[assignment]
                self._socket.send_multipart([identity, *frames])
        self._socket.close(linger=0)
        self._context.term()

    def close(self) -> None:
        self._closing = True
        self._thread.join()


@pytest.fixture
def impostor() -> Iterator[Impostor]:
    made = Impostor()
    yield made
    made.close()


WELCOME = Welcome("s", 0, 1, 7, 0, 0, "/dev/shm", None, 0.2, 10)
PARAMETERS = Parameters(0, False, np.zeros(3, np.float32), None)


def test_an_address_where_nobody_listens_is_given_up_after_patience(free_port: int) -> None:
    started = time.monotonic()
    with pytest.raises(AddressError) as error:
        ParameterClient(f"tcp://127.0.0.1:{free_port}", 3, patience=1.0).__enter__()
    assert 1.0 <= time.monotonic() - started < 4.0
    assert str(error.value) == (
        f"cannot reach a server at tcp://127.0.0.1:{free_port}: tried for 1 s; nobody listens there. "
        "Check that it runs, and that this is the address it printed"
    )


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("tcp://no-such-host.invalid:5555", "the name no-such-host.invalid is unknown here"),
        ("ipc:///tmp/there/is/no/server", "No such file or directory"),
        ("tcp://[::1]:1", "nobody listens there|unreachable|Cannot assign"),
        ("tcp://127.0.0.1", "expected an address like"),
    ],
)
def test_what_is_known_of_an_unreachable_address_is_told(address: str, why: str) -> None:
    assert re.search(why, why_unreachable(address))


def test_a_port_of_another_program_is_told_apart(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)) as other:
        other.listen()
        with pytest.raises(AddressError, match="something listens there and does not answer"):
            ParameterClient(f"tcp://127.0.0.1:{free_port}", 3, patience=0.3).__enter__()


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:5555", "tcp://127.0.0.1", "http://127.0.0.1:5555", "ipc://" + 120 * "x"]
)
def test_an_address_of_another_form_is_refused_at_once(address: str) -> None:
    with pytest.raises(AddressError, match=r"expected tcp://HOST:PORT or ipc://PATH"):
        ParameterClient(address, 3)


def test_a_server_that_comes_late_is_waited_for(free_port: int) -> None:
    versions: list[int] = []

    def work() -> None:
        with ParameterClient(f"tcp://127.0.0.1:{free_port}", SIZE, patience=20) as client:
            versions.append(client.pull().version)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.5)
    with Running(f"tcp://127.0.0.1:{free_port}"):
        thread.join(10)
    assert versions == [0]


def test_a_request_without_an_answer_is_sent_again(impostor: Impostor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.connection, "_ASK_AGAIN", 0.2)
    impostor.answers = [lambda _: WELCOME, lambda _: PARAMETERS, lambda _: None, lambda _: PARAMETERS]
    with ParameterClient(impostor.address, 3) as client:
        client.push(client.pull(), 1.0, np.ones(3, np.float32))
    pushes = [message for message in impostor.heard if isinstance(message, wire.Push)]
    assert [push.step for push in pushes] == [1, 1]


def test_an_answer_to_an_earlier_request_is_passed_over(impostor: Impostor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.connection, "_ASK_AGAIN", 0.2)
    late = [bytes(frame) for frame in wire.encode(Parameters(9, False, np.zeros(3, np.float32), None), 1)]
    impostor.answers = [lambda _: WELCOME, lambda _: late, lambda _: PARAMETERS]
    with ParameterClient(impostor.address, 3) as client:
        assert client.pull().version == 0


@pytest.mark.parametrize(
    "bad",
    [[b"garbage"], wire.encode(PARAMETERS, 2)[:1], wire.encode(Parameters(0, False, np.zeros(4, np.float32), None), 2)],
)
def test_an_answer_that_is_damaged_is_an_error_that_names_what_came(impostor: Impostor, bad: list[bytes]) -> None:
    impostor.answers = [lambda _: WELCOME, lambda _: [bytes(frame) for frame in bad]]
    with ParameterClient(impostor.address, 3) as client, pytest.raises(WireError, match="expected"):
        client.pull()


def test_a_refusal_that_would_come_again_is_raised_and_not_repeated_for_ever(impostor: Impostor) -> None:
    refusal = Refusal("wire", "Push.gradient: expected this, got that")
    impostor.answers = [lambda _: WELCOME, lambda _: PARAMETERS, lambda _: refusal]
    with ParameterClient(impostor.address, 3) as client:
        snapshot = client.pull()
        with pytest.raises(Exception, match="expected this, got that"):
            client.push(snapshot, 1.0, np.ones(3, np.float32))


def test_who_is_unknown_joins_again_and_repeats_its_request(impostor: Impostor) -> None:
    unknown = Refusal("unknown", "say Hello first (again)")
    answers: list[wire.Message] = [WELCOME, PARAMETERS, unknown, WELCOME, PARAMETERS]
    impostor.answers = [lambda _, reply=reply: reply for reply in answers]  # type: ignore[misc]
    with ParameterClient(impostor.address, 3) as client:
        client.push(client.pull(), 1.0, np.full(3, 2.0, np.float32))
    kinds = [type(message).__name__ for message in impostor.heard]
    assert kinds[:5] == ["Hello", "Pull", "Push", "Hello", "Push"]
    first, again = [message for message in impostor.heard if isinstance(message, wire.Push)]
    assert (first.step, again.step) == (1, 1)
    np.testing.assert_array_equal(first.gradient, again.gradient)
    assert [m.rank for m in impostor.heard if isinstance(m, wire.Hello)] == [None, 0]


def test_a_stop_is_heard_while_nothing_is_asked(impostor: Impostor) -> None:
    stop = [bytes(frame) for frame in wire.encode(Stop("interrupted", "stopped by SIGINT"), 0)]
    impostor.answers = [lambda _: WELCOME, lambda _: stop]
    with ParameterClient(impostor.address, 3, role="evaluator") as client:
        client._connection._send(wire.Watch())
        with pytest.raises(RunOver, match="stopped by SIGINT"):
            until(lambda: client.news() and False)


def test_news_of_a_server_that_fell_silent_ends_in_an_error(impostor: Impostor) -> None:
    impostor.answers = [lambda _: WELCOME]
    with ParameterClient(impostor.address, 3, role="evaluator", patience=0.6) as client:
        until(lambda: client.news() is not None)
        impostor.close()
        with pytest.raises(ServerLostError):
            until(lambda: client.news() and False, 5.0)


def test_heartbeats_come_at_their_interval_and_end_with_their_thread() -> None:
    with ipc() as path, Running(path) as running:
        pulse = Pulse(running.address, "nobody", 0.1)
        until(lambda: pulse.answer is not None)
        assert pulse.answer is not None
        assert not pulse.answer.known
        heard = pulse.last_heard
        until(lambda: pulse.last_heard > heard)
        pulse.close()
        assert not pulse._thread.is_alive()


def test_a_watcher_never_waits(free_port: int) -> None:
    watcher = Watcher(f"tcp://127.0.0.1:{free_port}")
    started = time.monotonic()
    assert watcher.poll() is None
    assert time.monotonic() - started < 0.5
    with Running(f"tcp://127.0.0.1:{free_port}"):
        until(lambda: watcher.poll() is not None)
    watcher.close()


def test_noted_is_no_answer_to_a_pull(impostor: Impostor) -> None:
    impostor.answers = [lambda _: WELCOME, lambda _: Noted()]
    with (
        ParameterClient(impostor.address, 3) as client,
        pytest.raises(Exception, match="expected Parameters, got Noted"),
    ):
        client.pull()
