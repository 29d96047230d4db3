"""Every decision of the server, without a socket."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from psserver import RuleOptions
from psserver.wire import Alive, Goodbye, Heartbeat, Parameters, Pull, Refusal, Report, Status, Stop, Watch
from tests.psserver.conftest import SIZE, Clock, Rows, ServerFactory, Talker


def by_hand(gradients: list[np.ndarray], learning_rate: float, momentum: float) -> np.ndarray:
    """x += μ (x − x_prev) − α g, with the formula's own operations in float32."""
    x = previous = np.arange(SIZE, dtype=np.float32)
    mu, alpha = np.float32(momentum), np.float32(learning_rate)
    for g in gradients:
        x, previous = x + (mu * (x - previous) - alpha * g), x
    return x


def test_one_worker_moves_the_parameters_as_computed_by_hand_bit_for_bit(make_server: ServerFactory) -> None:
    server = make_server(updates=200, workers=1, learning_rate=0.1, momentum=0.9)
    worker = Talker(server, "a")
    worker.pull()
    random = np.random.default_rng(0)
    gradients = [random.normal(size=SIZE).astype(np.float32) for _ in range(150)]
    for gradient in gradients:
        worker.push(gradient)
    assert worker.given is not None
    expected = by_hand(gradients, 0.1, 0.9)
    assert worker.given.values.tobytes() == expected.tobytes()


def test_weight_decay_is_part_of_the_gradient(make_server: ServerFactory, rows: Rows) -> None:
    server = make_server(workers=1, rule=RuleOptions("momentum_sgd", 0.5), learning_rate=0.25, momentum=0.0)
    worker = Talker(server, "a")
    worker.pull()
    worker.push(1.0)
    start = np.arange(SIZE, dtype=np.float32)
    assert worker.given is not None
    np.testing.assert_array_equal(worker.given.values, start - 0.25 * (1.0 + 0.5 * start))
    assert rows.rows[0].gradient_norm == pytest.approx(float(np.linalg.norm(1.0 + 0.5 * start)))


def test_adamws_weight_decay_is_no_part_of_it(make_server: ServerFactory, rows: Rows) -> None:
    server = make_server(workers=1, rule=RuleOptions(name="adamw", weight_decay=0.5), learning_rate=0.25, momentum=0.0)
    worker = Talker(server, "a")
    worker.pull()
    worker.push(2.0)
    start = np.arange(SIZE, dtype=np.float32)
    assert worker.given is not None
    np.testing.assert_allclose(worker.given.values, start - 0.25 * (1.0 + 0.5 * start), rtol=1e-6)
    assert rows.rows[0].gradient_norm == pytest.approx(2.0 * SIZE**0.5)


def test_a_repeated_push_is_applied_once(make_server: ServerFactory) -> None:
    server = make_server()
    worker = Talker(server, "a")
    worker.pull()
    first = worker.push(1.0)
    again = worker.push(1.0, step=1)
    assert isinstance(first, Parameters)
    assert isinstance(again, Parameters)
    assert (first.version, again.version, server.version) == (1, 1, 1)
    assert server.journal.progress.repeated == 1


def test_staleness_is_the_number_of_updates_since_the_version_of_the_push(
    make_server: ServerFactory, rows: Rows
) -> None:
    server = make_server()
    fast, slow = Talker(server, "f"), Talker(server, "s")
    for worker in (fast, slow):
        worker.pull()
    for _ in range(5):
        fast.push()
    slow.push()
    assert [row.staleness for row in rows.rows] == [0, 0, 0, 0, 0, 5]
    assert (rows.rows[-1].worker, rows.rows[-1].version) == (1, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(make_server: ServerFactory, bad: float) -> None:
    server = make_server()
    worker = Talker(server, "a")
    worker.pull()
    worker.push(1.0)
    before = server.trajectory.current.values.copy()
    gradient = np.ones(SIZE, np.float32)
    gradient[3] = bad
    for reply in (worker.push(gradient), worker.push(1.0, loss=bad)):
        assert isinstance(reply, Refusal)
        assert reply.code == "not-finite"
    np.testing.assert_array_equal(server.trajectory.current.values, before)
    progress = server.journal.progress
    assert (progress.applied, progress.rejected) == (1, 2)
    worker.pull()
    assert isinstance(worker.push(1.0), Parameters)


def test_a_run_whose_gradients_are_never_finite_again_ends_and_says_so(make_server: ServerFactory) -> None:
    server = make_server(workers=1)
    worker = Talker(server, "a")
    worker.pull()
    replies = [worker.push(math.nan) for _ in range(10)]
    assert isinstance(replies[-1], Stop)
    assert server.reason == ("failed", "diverged: the last 10 gradients were not finite")


@pytest.mark.parametrize("changes", [{"layout": "other"}, {"size": SIZE + 1}, {"buffer_size": 3}])
def test_a_foreign_model_is_refused_at_the_door(make_server: ServerFactory, changes: dict[str, Any]) -> None:
    worker = Talker(make_server(), "a", **changes)
    assert isinstance(worker.reply, Refusal)
    assert worker.reply.code == "layout"
    assert "expected 6 parameters and 2 buffer values" in worker.reply.text


def test_a_rank_that_is_taken_is_refused_until_its_holder_is_gone(make_server: ServerFactory, clock: Clock) -> None:
    server = make_server(heartbeat_timeout=5.0)
    first = Talker(server, "a", rank=3)
    first.pull()
    first.push()
    second = Talker(server, "b", rank=3)
    assert isinstance(second.reply, Refusal)
    assert second.reply.code == "rank"
    clock.now += 6
    server.tick()
    third = Talker(server, "c", rank=3)
    assert third.step == 1, "it goes on after the last step that was accounted for"
    assert server.journal.progress.lost == 1


def test_ranks_are_given_from_the_lowest_free_one(make_server: ServerFactory) -> None:
    server = make_server()
    for key in ("a", "b", "c"):
        Talker(server, key)
    server.handle("b", Goodbye("done", "", 0))
    Talker(server, "d")
    assert [(m.number, m.key) for m in server.members.workers] == [(0, "a"), (1, "d"), (2, "c")]


def test_who_is_not_a_member_is_told_to_say_hello(make_server: ServerFactory) -> None:
    reply = make_server().handle("stranger", Pull())
    assert isinstance(reply, Refusal)
    assert reply.code == "unknown"


def test_silence_beyond_the_limit_makes_a_member_lost_and_frees_its_version(
    make_server: ServerFactory, clock: Clock, rows: Rows
) -> None:
    server = make_server(heartbeat_timeout=10.0)
    quiet, loud = Talker(server, "q"), Talker(server, "l")
    quiet.pull()
    loud.pull()
    for _ in range(4):
        clock.now += 4
        assert server.handle("beat", Heartbeat("l")) == Alive(server.session, 0, True, False)
        server.tick()
    assert [m.state for m in server.members.workers] == ["lost", "computing"]
    assert server.trajectory.current.holders == 1
    assert ("lost", 0, "worker 0 lost: silent for 12.0 s (limit 10 s)") in rows.events
    assert server.handle("beat", Heartbeat("q")) == Alive(server.session, 0, False, False)


def test_a_lost_worker_that_returns_goes_on_under_its_number(make_server: ServerFactory, clock: Clock) -> None:
    server = make_server(heartbeat_timeout=1.0)
    worker = Talker(server, "a")
    worker.pull()
    worker.push()
    clock.now += 2
    server.tick()
    assert isinstance(worker.push(), Refusal)
    back = Talker(server, "a", rank=0)
    back.pull()
    back.push()
    assert server.members.workers[0].step == 2
    assert server.journal.progress.lost == 1


def test_the_run_drains_once_the_last_update_is_made(make_server: ServerFactory, rows: Rows) -> None:
    server = make_server(updates=3)
    fast, slow = Talker(server, "f"), Talker(server, "s")
    evaluator = Talker(server, "e", role="evaluator")
    fast.pull()
    slow.pull()
    replies = [fast.push() for _ in range(3)]
    assert isinstance(replies[-1], Stop)
    assert isinstance(slow.push(), Stop)
    final = evaluator.pull()
    assert isinstance(final, Parameters)
    assert final.final
    assert final.version == 3
    server.handle("e", Report(3, {"loss": 0.5, "accuracy": 0.75}))
    server.tick()
    assert server.phase == "draining", "it waits for goodbyes"
    for key in ("f", "s", "e"):
        server.handle(key, Goodbye("done", "", 1))
    server.tick()
    assert server.phase == "done"
    summary = server.summary()
    assert (summary["pushes_received"], summary["pushes_applied"], summary["pushes_rejected"]) == (4, 3, 1)
    assert (summary["best_eval"], summary["workers"], summary["reason"]) == (0.75, 2, "done")
    assert rows.summaries == [summary]


def test_draining_ends_without_goodbyes_when_its_time_is_over(make_server: ServerFactory, clock: Clock) -> None:
    server = make_server(updates=1, drain_timeout=20.0, heartbeat_timeout=1000.0)
    worker, silent = Talker(server, "a"), Talker(server, "b")
    worker.pull()
    silent.pull()
    worker.push()
    server.tick()
    assert server.phase == "draining"
    clock.now += 21
    server.tick()
    assert server.phase == "done"


def test_after_stop_everybody_is_told_so(make_server: ServerFactory) -> None:
    server = make_server()
    worker = Talker(server, "a")
    worker.pull()
    server.stop("interrupted", "stopped by SIGINT")
    assert worker.push() == Stop("interrupted", "stopped by SIGINT")
    assert isinstance(Talker(server, "b").reply, Stop)
    assert server.handle("stranger", Pull()) == Stop("interrupted", "stopped by SIGINT")


def test_buffers_are_averaged_over_the_workers_and_given_on_pull(make_server: ServerFactory) -> None:
    server = make_server()
    for key, value in (("a", 1.0), ("b", 3.0)):
        worker = Talker(server, key)
        worker.pull()
        worker.push(buffers=np.full(2, value, np.float32))
    evaluator = Talker(server, "e", role="evaluator")
    evaluator.pull()
    assert evaluator.given is not None
    assert evaluator.given.buffers is not None
    np.testing.assert_array_equal(evaluator.given.buffers, [2.0, 2.0])


def test_a_version_that_somebody_reads_is_never_overwritten(make_server: ServerFactory) -> None:
    server = make_server(updates=10_000, workers=2)
    reader, writer = Talker(server, "r"), Talker(server, "w")
    reader.pull()
    writer.pull()
    assert reader.given is not None
    held = reader.given.values
    for k in range(50):
        writer.push(float(k))
    np.testing.assert_array_equal(held, np.arange(SIZE))
    assert server.trajectory.slots == 5


def test_memory_stays_at_workers_plus_three_versions(make_server: ServerFactory) -> None:
    server = make_server(updates=10_000, workers=4)
    workers = [Talker(server, str(k)) for k in range(4)]
    for worker in workers:
        worker.pull()
    random = np.random.default_rng(1)
    for _ in range(500):
        workers[int(random.integers(4))].push()
    assert server.trajectory.slots == 7
    Talker(server, "fifth").pull()
    for _ in range(10):
        workers[0].push()
    assert server.trajectory.slots <= 8


def test_a_watcher_needs_no_membership(make_server: ServerFactory, clock: Clock) -> None:
    server = make_server()
    worker = Talker(server, "a")
    worker.pull()
    clock.now += 2
    worker.push(loss=0.25)
    status = server.handle("nobody", Watch())
    assert isinstance(status, Status)
    assert (status.phase, status.version, status.loss, status.applied) == ("training", 1, 0.25, 1)
    assert [(m.worker, m.state, m.pushes) for m in status.members] == [(0, "computing", 1)]
    assert server.members.find("nobody") is None


def test_a_push_of_the_wrong_length_is_refused(make_server: ServerFactory) -> None:
    worker = Talker(make_server(), "a")
    worker.pull()
    reply = worker.push(np.zeros(SIZE + 1))
    assert isinstance(reply, Refusal)
    assert "expected 6 values" in reply.text


def test_a_worker_of_unknown_layout_is_admitted_by_its_sizes(make_server: ServerFactory) -> None:
    assert not isinstance(Talker(make_server(), "a", layout="").reply, Refusal)
