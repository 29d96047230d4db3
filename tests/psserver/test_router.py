"""A server and its clients over real sockets: the same conversations over every transport."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import numpy as np
import psutil
import pytest

from psserver import wire
from psserver.errors import AddressError, ConfigurationError
from psserver.wire import Parameters
from tests.psserver.running import LEARNING_RATE, MOMENTUM, SIZE, Running, ipc, together, until
from worker import ParameterClient, RunOver

TCP = "tcp://127.0.0.1:*"
TRANSPORTS = [("ipc", True), ("ipc", False), ("tcp", True), ("tcp", False)]


class Transport:
    """Where to bind, and whether payloads go through shared memory."""

    def __init__(self, bind: str, shared: bool) -> None:
        self.bind, self.shared = bind, shared

    def running(self, **options: object) -> Running:
        return Running(self.bind, shared_memory=self.shared, **options)


@pytest.fixture(params=TRANSPORTS, ids=["ipc-shared", "ipc-frames", "tcp-shared", "tcp-frames"])
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    kind, shared = request.param
    with ipc() as path:
        yield Transport(path if kind == "ipc" else TCP, shared)


def train(address: str, pushes: int | None = None, others: threading.Barrier | None = None) -> ParameterClient:
    """Push gradients of ones until the run is over, or so many; the client, which has left."""
    with ParameterClient(address, SIZE) as client:
        if others is not None:
            others.wait()
        try:
            snapshot = client.pull()
            while pushes is None or client.pushes < pushes:
                client.gradient[:] = 1.0
                snapshot = client.push(snapshot, 1.0)
        except RunOver:
            pass
    return client


def test_one_worker_gets_the_parameters_computed_by_hand_bit_for_bit(transport: Transport) -> None:
    random = np.random.default_rng(3)
    x = before = np.zeros(SIZE, np.float32)
    with transport.running() as running, ParameterClient(running.address, SIZE) as client:
        snapshot = client.pull()
        for _ in range(20):
            g = random.normal(size=SIZE).astype(np.float32)
            snapshot = client.push(snapshot, 1.0, g)
            x, before = x + (np.float32(MOMENTUM) * (x - before) - np.float32(LEARNING_RATE) * g), x
            assert snapshot.parameters.tobytes() == x.tobytes()
        assert (snapshot.version, client.rejected) == (20, 0)
        assert (snapshot.segment is not None) == transport.shared


@pytest.mark.parametrize(
    "options", [{}, {"max_staleness": 2}, {"max_staleness": 0}, {"mode": "synchronous"}], ids=lambda o: str(o) or "free"
)
def test_every_push_of_several_clients_is_accounted_for(transport: Transport, options: dict[str, object]) -> None:
    clients: list[ParameterClient] = []
    with transport.running(updates=60, workers=3, **options) as running:
        barrier = threading.Barrier(3)
        together(*[lambda: clients.append(train(running.address, others=barrier)) for _ in range(3)])
        summary = running.ended()
    assert (summary["updates"], summary["reason"]) == (60, "done")
    assert summary["pushes_applied"] + summary["pushes_rejected"] == sum(client.pushes for client in clients)
    assert summary["pushes_applied"] == (180 if "mode" in options else 60)
    bound = 0 if "mode" in options else options.get("max_staleness", 59)
    assert max(row.staleness for row in running.rows.rows) <= bound
    pushed = [(a.worker, a.step) for row in running.rows.arrivals for a in row]
    assert len(pushed) == len(set(pushed)) == summary["pushes_applied"]


def test_a_push_whose_answer_was_lost_is_answered_alike_and_applied_once(transport: Transport) -> None:
    with transport.running(workers=2) as running, ParameterClient(running.address, SIZE) as client:
        snapshot = client.pull()
        client.push(snapshot, 1.0, np.ones(SIZE, np.float32))
        connection, welcome = client._connection, client.welcome
        push = wire.Push(welcome.session, 1, 0, 1.0, client._payload(), None)
        train(running.address, pushes=3)
        again = [connection.ask(push, welcome) for _ in range(2)]
        assert [reply.version for reply in again if isinstance(reply, Parameters)] == [1, 1]
        assert (running.server.version, running.server.journal.progress.repeated) == (4, 2)


def test_an_evaluator_sees_the_final_version_and_the_run_waits_for_its_report(transport: Transport) -> None:
    with transport.running(updates=5) as running:
        with ParameterClient(running.address, SIZE, role="evaluator") as evaluator:
            assert evaluator.pull().version == 0
            train(running.address)
            until(lambda: (news := evaluator.news()) is not None and news.final)
            snapshot = evaluator.pull()
            assert (snapshot.version, snapshot.final, running.server.phase) == (5, True, "draining")
            evaluator.report(snapshot.version, {"accuracy": 0.5})
        summary = running.ended()
    assert (summary["best_eval"], summary["last_eval_update"], summary["workers_lost"]) == (0.5, 5, 0)


def test_a_stop_reaches_those_who_wait_and_those_who_come_later(transport: Transport) -> None:
    with transport.running(workers=2, mode="synchronous") as running, ParameterClient(running.address, SIZE) as client:
        threading.Timer(0.1, running.stop, ["stopped by SIGINT"]).start()
        with pytest.raises(RunOver, match="stopped by SIGINT") as over:
            client.pull()
        assert over.value.reason == "interrupted"


def test_several_addresses_serve_one_run() -> None:
    with ipc() as path, Running([TCP, path], updates=40, workers=2) as running:
        barrier = threading.Barrier(2)
        together(*[partial(train, address, others=barrier) for address in running.addresses])
        assert running.ended()["workers"] == 2


# Addresses ------------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with Running(TCP) as running:
        with pytest.raises(AddressError, match=rf"cannot bind {running.address}: the port is in use"):
            Running(running.address).__enter__()
        with ParameterClient(running.address, SIZE) as client:
            assert client.pull().version == 0, "the first server goes on"


def test_an_ipc_path_in_use_is_not_taken_away_from_its_server() -> None:
    with ipc() as path, Running(path) as running:
        with pytest.raises(AddressError, match="another server uses it"):
            Running(path).__enter__()
        train(running.address, pushes=1)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ipc:///tmp/" + "x" * 110, "the path is longer than the 107 bytes"),
        ("ipc:///nowhere/at/all", "No such file or directory"),
        ("tcp://192.0.2.1:5555", "no such address or interface"),
        ("tcp://no-such-host.invalid:5555", "no such address or interface"),
        ("udp://127.0.0.1:5555", "The protocol is not compatible"),
        ("nonsense", "Invalid argument"),
    ],
)
def test_an_address_that_cannot_be_bound_is_an_error_that_says_why(address: str, said: str) -> None:
    with pytest.raises(AddressError, match=said):
        Running(address).__enter__()


def test_a_limit_below_what_the_model_needs_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"server\.max_message_bytes: expected at least 80000"):
        Running(TCP, max_message_bytes=1000).__enter__()


def test_nothing_is_left_open(transport: Transport) -> None:
    _train_and_end(transport)
    process = psutil.Process()
    files, threads = process.num_fds(), threading.active_count()
    for _ in range(2):
        _train_and_end(transport)
    until(lambda: process.num_fds() <= files and threading.active_count() <= threads, 5.0)


def _train_and_end(transport: Transport) -> None:
    with transport.running(updates=5) as running:
        train(running.address)
        running.ended()
