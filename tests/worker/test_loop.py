"""What a worker and an evaluator do all day, with a real task and a real server."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from psserver import Model, ParameterServer, Plan, RuleOptions, ServerOptions
from psserver.errors import ServerLostError
from tests.psserver.conftest import Rows
from tests.psserver.running import Running, together, until
from tuner import TunerOptions, build
from worker import Evaluator, Gradient, ParameterClient, RunOver, Shard
from worker.loop import watch_over, work
from worker.zoo.quadratic import quadratic

TCP = "tcp://127.0.0.1:*"
TASK = quadratic(size=50, noise=0.0)
UPDATES, RATE, MU = 30, 0.5, 0.25


class Run(Running):
    """A server of the quadratic."""

    def __init__(self, **options: object) -> None:
        super().__init__(TCP, size=50)
        self.server.close()
        tuner = TunerOptions(target="constant", learning_rate=RATE, momentum=MU, loop="open", sample=0)
        self.rows = Rows()
        self.server = ParameterServer(
            Model(np.ones(50, np.float32), np.zeros(0, np.float32), Gradient(TASK, Shard(0, 1, 0), CPU).layout.digest),
            Plan(UPDATES, 1, 0, curvature_every=7, distance_every=6),
            build(tuner, 50, UPDATES, 0),
            RuleOptions("momentum_sgd"),
            ServerOptions(**options),  # type: ignore[arg-type]
            self.rows,
        )

    def client(self, role: str = "worker", patience: float = 60.0) -> ParameterClient:
        return ParameterClient(self.address, 50, role=role, patience=patience)  # type: ignore[arg-type]


CPU = torch.device("cpu")


def by_hand() -> np.ndarray:
    """x += μ (x − x_prev) − α h x, in the order and precision of the server."""
    h = TASK.model().get_buffer("h").numpy()
    x = before = np.ones(50, np.float32)
    for _ in range(UPDATES):
        x, before = x + (np.float32(MU) * (x - before) - np.float32(RATE) * (h * x)), x
    return x


@pytest.mark.parametrize("shared", [True, False])
def test_a_worker_trains_until_the_run_is_over(shared: bool) -> None:
    with Run(shared_memory=shared) as running:
        with running.client() as client:
            over = work(client, Gradient(TASK, Shard(0, 1, 0), CPU))
        assert (over.reason, client.pushes, client.rejected) == ("done", UPDATES, 0)
        assert running.ended()["updates"] == UPDATES
        np.testing.assert_allclose(running.server.trajectory.current.values, by_hand(), rtol=1e-5, atol=1e-7)


def test_an_evaluator_reports_on_the_way_and_at_the_end() -> None:
    with Run() as running:
        ready = threading.Event()

        def worker() -> None:
            ready.wait(10)
            with running.client() as client:
                gradient = Gradient(TASK, Shard(0, 1, 0), CPU)
                snapshot = client.pull()
                while True:
                    loss, _ = gradient.compute(snapshot.parameters, torch.from_numpy(client.gradient), client.step + 1)
                    try:
                        snapshot = client.push(snapshot, loss)
                    except RunOver:
                        return
                    if snapshot.version == 10:
                        until(lambda: running.rows.evaluations)

        def evaluator() -> None:
            with running.client("evaluator") as client:
                ready.set()
                watch_over(client, Evaluator(TASK, CPU), every=10, pause=0.01)

        together(worker, evaluator)
        summary = running.ended()
    versions = [version for version, _ in running.rows.evaluations]
    assert versions[0] == 10
    assert versions[-1] == summary["last_eval_update"] == UPDATES
    assert versions == sorted(set(versions))
    assert running.rows.evaluations[-1][1]["distance"] == pytest.approx(float(np.linalg.norm(by_hand())), rel=1e-5)


def test_an_evaluator_that_is_never_due_still_sees_the_last_version() -> None:
    with Run() as running:

        def evaluator() -> None:
            with running.client("evaluator") as client:
                joined.wait()
                watch_over(client, Evaluator(TASK, CPU), every=0, pause=0.01)

        def worker() -> None:
            joined.wait()
            with running.client() as client:
                work(client, Gradient(TASK, Shard(0, 1, 0), CPU))

        joined = threading.Barrier(2)
        together(worker, evaluator)
        running.ended()
    assert [version for version, _ in running.rows.evaluations] == [UPDATES]


def test_an_evaluator_hears_of_an_interruption() -> None:
    with Run() as running, running.client("evaluator") as client:
        threading.Timer(0.2, running.stop).start()
        watch_over(client, Evaluator(TASK, CPU), every=10, pause=0.01)
        assert running.ended()["reason"] == "interrupted"


def test_an_evaluator_does_not_watch_over_a_dead_server_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with Run() as running:
        client = running.client("evaluator", patience=0.5)
        client.join()
        monkeypatch.setattr(running.server, "handle", lambda sender, message: None)
        with pytest.raises(ServerLostError):
            watch_over(client, Evaluator(TASK, CPU), every=10, pause=0.01)
        client.close()


def test_a_workers_first_push_says_that_its_recurrent_state_is_fresh() -> None:
    counting = replace(
        TASK, loss=lambda module, xi, state: (TASK.loss(module, xi), state + 1), state=lambda module: torch.zeros(())
    )
    with Run() as running:
        with running.client() as client:
            work(client, Gradient(counting, Shard(0, 1, 0), CPU))
        running.ended()
    fresh = [arrival.fresh for arrivals in running.rows.arrivals for arrival in arrivals]
    assert fresh == [True] + [False] * (UPDATES - 1)


def test_a_worker_measures_curvature_as_often_as_the_server_asks() -> None:
    with Run() as running:
        with running.client() as client:
            work(client, Gradient(TASK, Shard(0, 1, 0), CPU))
        running.ended()
    found = [arrivals[0].curvature for arrivals in running.rows.arrivals]
    assert [step for step, curvature in enumerate(found, start=1) if curvature] == [1, 8, 15, 22, 29]
    assert found[28] == pytest.approx((1.0, float(TASK.model().get_buffer("h").mean())), rel=0.01)


def test_a_worker_searches_for_the_distance_as_often_as_the_server_asks() -> None:
    with Run() as running:
        with running.client() as client:
            work(client, Gradient(TASK, Shard(0, 1, 0), CPU))
        running.ended()
    found = [arrivals[0].distance for arrivals in running.rows.arrivals]
    assert [step for step, distance in enumerate(found, start=1) if distance] == [1, 7, 13, 19, 25]
    h = TASK.model().get_buffer("h")
    assert found[0] == pytest.approx(float(h.norm() * h.dot(h) / h.dot(h * h)), rel=1e-4)  # at x = 1, g = h
