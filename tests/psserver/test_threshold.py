"""The delay threshold: what is discarded, how it is counted, and that the worker goes on."""

from __future__ import annotations

import numpy as np
import pytest

from psserver import RuleOptions
from psserver.wire import Parameters, Refusal
from tests.psserver.conftest import Rows, ServerFactory, Talker

RULE = RuleOptions("momentum_sgd", staleness="threshold", delay_threshold=2)


def test_a_gradient_is_discarded_from_the_threshold_on_and_every_other_is_applied_as_it_is(
    make_server: ServerFactory, rows: Rows
) -> None:
    server = make_server(workers=3, rule=RULE, learning_rate=0.25, momentum=0.0)
    workers = [Talker(server, key) for key in "abc"]
    for worker in workers:
        worker.pull()
    replies = [worker.push(8.0) for worker in workers]  # τ = 0, 1, 2
    assert [isinstance(reply, Parameters) for reply in replies] == [True, True, False]
    refusal = replies[2]
    assert isinstance(refusal, Refusal)
    assert refusal.code == "stale"
    assert refusal.text == "staleness: expected below 2, from which on rule.staleness 'threshold' discards, got 2"
    np.testing.assert_array_equal(server.trajectory.current.values, np.arange(6) - 4.0)
    assert (server.version, server.journal.progress.applied, server.journal.progress.rejected) == (2, 2, 1)
    assert [refused[0] for refused in rows.refusals] == [2]
    workers[2].pull()
    assert isinstance(workers[2].push(8.0), Parameters)
    assert server.version == 3


def test_a_run_with_every_second_gradient_discarded_is_no_failure_and_the_worker_is_told_of_once(
    make_server: ServerFactory, rows: Rows
) -> None:
    server = make_server(
        workers=2, rule=RuleOptions("momentum_sgd", staleness="threshold", delay_threshold=1), updates=60
    )
    workers = [Talker(server, key) for key in "ab"]
    for worker in workers:
        worker.pull()
    for turn in range(119):  # the push after the last one applied would come after the end
        if isinstance(workers[turn % 2].push(1.0), Refusal):
            workers[turn % 2].pull()
    progress = server.journal.progress
    assert progress.applied == 60
    assert progress.rejected > 50
    assert (progress.late, server.phase) == (0, "draining")
    assert sum(kind == "rejected" for kind, _, _ in rows.events) == 1


@pytest.mark.parametrize("threshold", [None, 0, -1])
def test_a_threshold_must_be_given_and_above_0(threshold: int | None) -> None:
    with pytest.raises(ValueError, match=r"delay_threshold: expected 1 or more updates"):
        RuleOptions(staleness="threshold", delay_threshold=threshold)


def test_it_has_no_meaning_in_synchronous_mode(make_server: ServerFactory) -> None:
    with pytest.raises(ValueError, match=r"rule.staleness: expected no 'threshold' in synchronous mode .*, got"):
        make_server(rule=RULE, mode="synchronous")
