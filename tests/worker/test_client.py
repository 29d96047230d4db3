"""The client against real servers: NumPy in, NumPy out, and every error a sentence."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from psserver.errors import LayoutError, RefusedError, SharedMemoryError
from psserver.wire import Segment
from tests.psserver.running import SIZE, Running, together, until
from worker import ParameterClient, RunOver

TCP = "tcp://127.0.0.1:*"
ONES = np.ones(SIZE, np.float32)


@pytest.mark.parametrize("shared", [True, False])
def test_a_worker_in_plain_numpy_fits_a_linear_regression(shared: bool) -> None:
    random = np.random.default_rng(0)
    solution = random.normal(size=8)
    inputs = random.normal(size=(64, 8))
    targets = inputs @ solution

    def work() -> None:
        with ParameterClient(running.address, size=8) as client:
            snapshot = client.pull()
            while True:
                error = inputs @ snapshot.parameters - targets
                gradient = inputs.T @ error / len(targets)
                snapshot = client.push(snapshot, float(error @ error), gradient)

    def worker() -> None:
        with pytest.raises(RunOver) as over:
            work()
        assert over.value.reason == "done"

    with Running(TCP, size=8, updates=400, workers=2, shared_memory=shared) as running:
        together(worker, worker)
        summary = running.ended()
        np.testing.assert_allclose(running.server.trajectory.current.values, solution, atol=1e-4)
    assert summary["final_train_loss"] < 1e-6


def test_leaving_says_why() -> None:
    with Running(TCP) as running:
        for error in (None, KeyboardInterrupt(), ValueError("no data")):
            try:
                with ParameterClient(running.address, SIZE) as client:
                    client.push(client.pull(), 1.0, ONES)
                    if error is not None:
                        raise error
            except (KeyboardInterrupt, ValueError):
                pass
            until(lambda: running.server.members.workers[0].state == "left")
        said = [(kind, text) for kind, _, text in running.rows.events if kind in ("left", "failed")]
    assert said == [
        ("left", "worker 0 left after 1 pushes"),
        ("left", "worker 0 left after 1 pushes"),
        ("failed", "worker 0 failed after 1 pushes: ValueError: no data"),
    ]


def test_a_client_that_could_not_join_leaves_no_thread_and_no_socket() -> None:
    with Running(TCP) as running:
        before = threading.active_count()
        for _ in range(3):
            with pytest.raises(LayoutError):
                ParameterClient(running.address, SIZE + 1).__enter__()
        assert threading.active_count() == before


def test_what_was_said_at_the_door_is_asked_for_after_joining_only() -> None:
    with Running(TCP) as running:
        client = ParameterClient(running.address, SIZE, rank=4)
        with pytest.raises(RuntimeError, match="has not joined yet"):
            client.pull()
        with client:
            welcome = client.welcome
            assert (welcome.worker, welcome.workers, welcome.seed, welcome.step) == (4, 1, 7, 0)


@pytest.mark.parametrize("shape", [(1,), (SIZE - 1,), (SIZE, 1), ()])
def test_a_gradient_of_another_shape_is_refused_and_never_broadcast(shape: tuple[int, ...]) -> None:
    with Running(TCP) as running, ParameterClient(running.address, SIZE) as client:
        snapshot = client.pull()
        with pytest.raises(LayoutError, match=rf"gradient: expected shape \({SIZE},\), got"):
            client.push(snapshot, 1.0, np.ones(shape, np.float32))
        with pytest.raises(LayoutError, match=r"buffers: expected shape \(0,\)"):
            client.push(snapshot, 1.0, ONES, buffers=np.ones(3, np.float32))
        assert client.push(snapshot, 1.0, ONES).version == client.pushes == 1


def test_a_gradient_of_another_type_is_converted() -> None:
    with Running(TCP) as running, ParameterClient(running.address, SIZE) as client:
        snapshot = client.push(client.pull(), 1.0, np.ones(2 * SIZE)[::2])
        np.testing.assert_array_equal(snapshot.parameters, np.full(SIZE, -0.125, np.float32))


def test_an_evaluator_cannot_push_and_a_worker_cannot_report() -> None:
    with Running(TCP) as running:
        with ParameterClient(running.address, SIZE, role="evaluator") as evaluator:
            snapshot = evaluator.pull()
            with pytest.raises(RefusedError, match=r"Push\.gradient"):
                evaluator.push(snapshot, 1.0)
        with ParameterClient(running.address, SIZE) as worker, pytest.raises(RefusedError, match="got Report"):
            worker.report(0, {"loss": 1.0})


def test_parameters_in_shared_memory_cannot_be_written() -> None:
    with Running(TCP) as running, ParameterClient(running.address, SIZE) as client:
        parameters = client.pull().parameters
        with pytest.raises(ValueError, match="read-only"):
            parameters[0] = 1.0


def test_a_client_that_cannot_see_the_servers_memory_uses_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    def unseen(path: Path, size: int, *, writable: bool) -> Segment:
        raise SharedMemoryError(f"cannot attach shared memory {path}: No such file or directory")

    monkeypatch.setattr(Segment, "attach", unseen)
    with Running(TCP) as running:
        with ParameterClient(running.address, SIZE) as client:
            snapshot = client.pull()
            assert (client.welcome.gradient, snapshot.segment) == (None, None)
            assert client.push(snapshot, 1.0, ONES).version == 1
        with ParameterClient(running.address, SIZE, role="evaluator") as evaluator:
            assert evaluator.pull().segment is None
        told = [text for kind, _, text in running.rows.events if kind == "memory"]
    assert told == [f"{name} sees no shared memory of the server: it uses frames" for name in ("worker 0", "evaluator")]


def test_old_versions_do_not_stay_mapped() -> None:
    with Running(TCP, workers=1, updates=1000) as running, ParameterClient(running.address, SIZE) as client:
        snapshot = client.pull()
        trajectory = running.server.trajectory
        for _ in range(30):
            trajectory.hold(trajectory.version)
            trajectory.release(trajectory.version, unread=True)
            snapshot = client.push(snapshot, 1.0, ONES)
        assert snapshot.version == 30
        assert len(client._versions) <= trajectory.slots + 2


def test_a_snapshot_outlives_its_client_and_its_server() -> None:
    with Running(TCP) as running, ParameterClient(running.address, SIZE) as client:
        snapshot = client.push(client.pull(), 1.0, ONES)
    assert snapshot.intact
    assert snapshot.parameters[0] == -0.125
