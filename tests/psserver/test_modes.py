"""Bounded staleness and synchronous rounds: replies held back, and let go at the right moment."""

from __future__ import annotations

import math

import numpy as np
import pytest

from psserver.metrics import Arrival
from psserver.wire import Parameters, Refusal, Stop
from tests.psserver.conftest import SIZE, Clock, Rows, ServerFactory, Talker


@pytest.mark.parametrize("bound", [0, 1, 2, 3, 7, 20])
def test_no_gradient_is_ever_staler_than_the_bound(make_server: ServerFactory, rows: Rows, bound: int) -> None:
    server = make_server(updates=400, workers=5, max_staleness=bound)
    workers = {str(k): Talker(server, str(k)) for k in range(5)}
    computing = [key for key, worker in workers.items() if isinstance(worker.pull(), Parameters)]
    random = np.random.default_rng(bound)
    while server.version < 400:
        assert computing, "somebody can always go on"
        pick = int(random.integers(len(computing))) if random.random() < 0.5 else 0
        pushed = computing.pop(pick)
        if isinstance(workers[pushed].push(), Parameters):
            computing.append(pushed)
        for key, reply in server.released():
            workers[key].take(reply)
            computing += [key] if isinstance(reply, Parameters) else []
    assert max(row.staleness for row in rows.rows) <= bound
    assert (max(row.staleness for row in rows.rows) > 0) == (bound > 0)


def test_a_push_that_comes_back_too_stale_is_refused(make_server: ServerFactory, clock: Clock) -> None:
    server = make_server(workers=2, max_staleness=1, heartbeat_timeout=1.0)
    slow = Talker(server, "s")
    slow.pull()
    clock.now += 2
    server.tick()
    other = Talker(server, "o")
    other.pull()
    for _ in range(3):
        other.push()
    back = Talker(server, "s")
    reply = back.push(version=0)
    assert isinstance(reply, Refusal)
    assert reply.text == "staleness: expected at most 1, got 3"


def test_the_loss_of_a_slow_worker_lets_the_others_go_on(make_server: ServerFactory, clock: Clock) -> None:
    server = make_server(workers=2, max_staleness=1, heartbeat_timeout=5.0)
    slow, fast = Talker(server, "s"), Talker(server, "f")
    slow.pull()
    fast.pull()
    assert fast.push() is None, "it would make the slow gradient staler than 1"
    clock.now += 4
    fast_member = server.members.find("f")
    assert fast_member is not None
    fast_member.heard = clock.now
    clock.now += 2
    server.tick()
    assert isinstance(fast.collect(server.released()), Parameters)


def test_a_synchronous_round_is_the_mean_of_all_workers(make_server: ServerFactory, rows: Rows) -> None:
    server = make_server(workers=3, mode="synchronous", learning_rate=1.0, momentum=0.0)
    workers = [Talker(server, str(k)) for k in range(3)]
    assert [worker.pull() for worker in workers[:2]] == [None, None], "it starts when all are there"
    workers[2].pull()
    released = server.released()
    for worker in workers[:2]:
        assert isinstance(worker.collect(released), Parameters)
    assert workers[0].push(3.0, loss=1.0) is None
    assert workers[2].push(6.0, loss=2.0) is None
    assert server.version == 0
    last = workers[1].push(0.0, loss=6.0)
    assert isinstance(last, Parameters)
    np.testing.assert_array_equal(last.values, np.arange(SIZE, dtype=np.float32) - 3.0)
    assert {key for key, _ in server.released()} == {"0", "2"}
    row = rows.rows[0]
    assert (row.worker, row.staleness, row.loss, row.version) == (None, 0, 3.0, 0)
    assert [(a.worker, a.step) for a in rows.arrivals[0]] == [(0, 1), (1, 1), (2, 1)]
    assert server.journal.progress.applied == 3


def test_a_round_closes_without_a_worker_that_is_lost(make_server: ServerFactory, clock: Clock) -> None:
    server = make_server(workers=2, mode="synchronous", heartbeat_timeout=5.0)
    a, b = Talker(server, "a"), Talker(server, "b")
    a.pull()
    b.pull()
    a.collect(server.released())
    a.push()
    clock.now += 4
    member = server.members.find("a")
    assert member is not None
    member.heard = clock.now
    clock.now += 3
    server.tick()
    assert server.version == 1
    assert isinstance(a.collect(server.released()), Parameters)


def test_one_bad_gradient_does_not_spoil_a_round(make_server: ServerFactory, rows: Rows) -> None:
    server = make_server(workers=2, mode="synchronous")
    a, b = Talker(server, "a"), Talker(server, "b")
    a.pull()
    b.pull()
    a.collect(server.released())
    a.push(1.0, fresh=True)
    assert isinstance(b.push(math.nan), Refusal)
    assert rows.refusals == [(0, 0, Arrival(1, 1), "not-finite")]
    assert rows.arrivals == [[Arrival(0, 1, fresh=True)]]
    released = server.released()
    assert isinstance(a.collect(released), Parameters), "nobody computes any more, so the round closes"
    assert server.version == 1
    assert isinstance(b.pull(), Parameters)


def test_a_repeated_push_in_a_round_counts_once_and_stays_held(make_server: ServerFactory) -> None:
    server = make_server(workers=2, mode="synchronous")
    a, b = Talker(server, "a"), Talker(server, "b")
    a.pull()
    b.pull()
    a.collect(server.released())
    assert a.push(1.0) is None
    assert a.push(1.0, step=1) is None
    assert isinstance(b.push(3.0), Parameters)
    assert server.journal.progress.applied == 2
    assert server.journal.progress.repeated == 1


def test_held_back_workers_are_told_when_the_run_ends(make_server: ServerFactory) -> None:
    server = make_server(updates=1, workers=2, max_staleness=1)
    a, b = Talker(server, "a"), Talker(server, "b")
    a.pull()
    b.pull()
    assert isinstance(a.push(), Stop)
    assert isinstance(b.push(), Stop)
    sync = make_server(workers=2, mode="synchronous")
    waiting = Talker(sync, "w")
    assert waiting.pull() is None
    sync.stop("interrupted", "stopped")
    assert dict(sync.released()) == {"w": Stop("interrupted", "stopped")}
