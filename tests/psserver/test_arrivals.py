"""Every step that was judged is on record, applied or refused, once and in order."""

from __future__ import annotations

import math

from psserver.metrics import Arrival
from tests.psserver.conftest import Rows, ServerFactory, Talker


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
