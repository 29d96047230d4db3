"""Counts and running means, and that a resumed run goes on with them."""

from __future__ import annotations

import json
import math

import pytest

from psserver.progress import Progress, UpdateRow
from tests.psserver.conftest import Rows, ServerFactory, Talker
from tuner import TunerOptions


def row(
    update: int, loss: float = 1.0, staleness: int = 0, total: float | None = None, seconds: float = 0
) -> UpdateRow:
    return UpdateRow(update, seconds, 0, update - 1, staleness, loss, 1.0, 0.1, 0.01 * update, 0.5, total)


def progress(rows: int = 300) -> Progress:
    made = Progress()
    for update in range(1, rows + 1):
        total = 0.5 if update % 2 else None
        made.update(row(update, loss=float(update), staleness=update % 16, total=total, seconds=0.1 * update))
    return made


def test_the_loss_is_the_mean_of_the_last_hundred() -> None:
    assert progress().loss == pytest.approx(250.5)


def test_staleness_is_averaged_over_the_whole_run_for_the_summary() -> None:
    made = progress(160)
    assert made.summary()["mean_staleness"] == pytest.approx(7.5)
    assert made.staleness()[1] == pytest.approx(15.0, abs=1)


def test_only_what_was_measured_counts_for_total_momentum() -> None:
    assert progress().summary()["mean_total_momentum"] == 0.5
    assert progress(0).summary()["mean_total_momentum"] is None


def test_the_smallest_momentum_and_the_last_are_kept() -> None:
    summary = progress().summary()
    assert (summary["momentum_min"], summary["momentum_final"]) == (0.01, 3.0)


def test_the_rate_is_of_the_last_hundred_and_falls_when_nothing_comes() -> None:
    made = progress()
    assert made.rate(30.0) == pytest.approx(10.0)
    assert made.rate(129.0) == pytest.approx(1.0, rel=0.01)
    assert Progress().rate(5.0) == 0.0


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ([{"accuracy": 0.5}, {"accuracy": 0.75}, {"accuracy": 0.25}], 0.75),
        ([{"loss": 0.5}, {"loss": 0.25}, {"loss": 0.75}], 0.25),
        ([{"accuracy": math.nan}, {"accuracy": 0.5}, {"accuracy": math.nan}], 0.5),
        ([{"perplexity": 7.0}], None),
        ([{}], None),
    ],
)
def test_the_best_is_the_highest_accuracy_or_the_lowest_loss(found: list[dict[str, float]], best: float | None) -> None:
    made = Progress()
    for version, values in enumerate(found):
        made.evaluate(version, values)
    assert made.best == best
    assert made.evaluated_at == len(found) - 1


def test_a_checkpoint_carries_all_of_it() -> None:
    made = progress()
    made.evaluate(300, {"accuracy": 0.5})
    made.applied, made.rejected, made.repeated, made.lost = 300, 4, 2, 1
    back = Progress()
    back.load_state_dict(json.loads(json.dumps(made.state_dict())))
    for later in (made, back):
        later.update(row(301, loss=0.5, seconds=31.0))
    assert back.summary() == made.summary()
    assert (back.loss, back.rate(31.0), back.staleness()) == (made.loss, made.rate(31.0), made.staleness())
    assert back.last == made.last


def test_a_loop_that_asks_for_more_than_its_clamp_allows_is_told_of_once_and_counted(
    make_server: ServerFactory, rows: Rows
) -> None:
    tuner = TunerOptions(target="constant", momentum=0.0, loop="closed", estimator="lag", gain=0.5, momentum_min=-0.2)
    server = make_server(tuner=tuner)
    fast, slow = Talker(server, "f"), Talker(server, "s")
    for worker in (fast, slow):
        worker.pull()
    for _ in range(4):
        fast.push()
        slow.push()
    told = [text for kind, _, text in rows.events if kind == "clamped"]
    assert [text.split(" (")[0] for text in told] == ["update 3: the loop asks for less momentum than it may apply"]
    assert server.summary()["updates_clamped_low"] == 6
    assert server.summary()["updates_clamped_high"] == 0
