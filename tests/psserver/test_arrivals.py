"""Every step that was judged is on record, applied or refused, once and in order."""

from __future__ import annotations

import math

import pytest

from psserver.metrics import Arrival
from psserver.options import RuleOptions
from tests.psserver.conftest import Rows, ServerFactory, Talker
from tuner import TunerOptions


def test_every_step_that_was_judged_is_on_record_with_its_fate(make_server: ServerFactory, rows: Rows) -> None:
    server = make_server(updates=3)
    a, b = Talker(server, "a"), Talker(server, "b")
    a.pull()
    b.pull()
    a.push(fresh=True)
    a.push()
    b.push(math.nan, fresh=True)
    b.push(step=1)
    b.push(version=0)
    b.push()
    assert rows.arrivals == [[Arrival(0, 1, fresh=True)], [Arrival(0, 2)], [Arrival(1, 2)]]
    assert rows.refusals == [(2, 0, Arrival(1, 1, fresh=True), "not-finite")], (
        "no row for a repetition, none after the end"
    )


def test_finite_gradients_whose_mean_is_not_end_the_run_and_are_on_record(
    make_server: ServerFactory, rows: Rows
) -> None:
    server = make_server(workers=2, mode="synchronous")
    workers = [Talker(server, key) for key in "ab"]
    for worker in workers:
        worker.pull()
    workers[0].collect(server.released())
    for worker in workers:
        worker.push(3e38)
    assert server.reason == ("failed", "diverged: the mean of finite gradients is not finite")
    assert rows.refusals == [(0, 0, Arrival(k, 1), "not-finite") for k in (0, 1)]
    assert server.journal.progress.rejected == 2


MEASURING = TunerOptions("yellowfin", curvature="hessian", loop="open", sample=0)


def test_a_measured_curvature_is_on_record_and_reaches_the_tuner_with_the_weight_decay(
    make_server: ServerFactory, rows: Rows
) -> None:
    servers = [make_server(tuner=MEASURING, rule=RuleOptions("momentum_sgd", decay)) for decay in (0.0, 0.5)]
    for server, curvature in zip(servers, [(4.5, 1.5), (4.0, 1.0)], strict=True):
        worker = Talker(server, "a")
        worker.pull()
        worker.push(curvature=curvature)
        worker.push(math.nan, curvature=(1e9, 1e9))
    plain, decayed = (server.state_dict()["tuner"]["target"]["measured"] for server in servers)
    assert plain == decayed
    assert plain["recent"] == [4.5]
    assert rows.arrivals[0] == [Arrival(0, 1, curvature=(4.5, 1.5))]


def test_of_a_synchronous_round_the_mean_of_what_was_measured_counts(make_server: ServerFactory) -> None:
    server = make_server(workers=2, mode="synchronous", tuner=MEASURING)
    workers = [Talker(server, key) for key in "ab"]
    for worker in workers:
        worker.pull()
    workers[0].collect(server.released())
    for worker, curvature in zip(workers, [(2.0, 1.0), (6.0, 0.0)], strict=True):
        worker.push(curvature=curvature)
    measured = server.state_dict()["tuner"]["target"]["measured"]
    assert measured["recent"] == [4.0]
    assert measured["mean"]["total"] / measured["mean"]["weight"] == pytest.approx(0.5)


SEARCHING = TunerOptions("yellowfin", distance_by="line-search", loop="open", sample=0)


def test_a_searched_distance_is_on_record_and_reaches_the_tuner(make_server: ServerFactory, rows: Rows) -> None:
    server = make_server(tuner=SEARCHING)
    worker = Talker(server, "a")
    worker.pull()
    worker.push(distance=4.5)
    worker.push(math.nan, distance=1e9)
    searched = server.state_dict()["tuner"]["target"]["searched"]
    assert searched["total"] / searched["weight"] == pytest.approx(math.log(4.5))
    assert rows.arrivals[0] == [Arrival(0, 1, distance=4.5)]


def test_of_a_synchronous_round_the_mean_of_the_distances_counts(make_server: ServerFactory) -> None:
    server = make_server(workers=3, mode="synchronous", tuner=SEARCHING)
    workers = [Talker(server, key) for key in "abc"]
    for worker in workers:
        worker.pull()
    for worker in workers:
        worker.collect(server.released())
    for worker, distance in zip(workers, [2.0, None, 6.0], strict=True):
        worker.push(distance=distance)
    searched = server.state_dict()["tuner"]["target"]["searched"]
    assert searched["total"] / searched["weight"] == pytest.approx(math.log(4.0))
