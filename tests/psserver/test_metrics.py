"""The run's files: readable while it goes on, cut where a resumed run starts, and JSON whatever happens."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from psserver import RunRecord
from psserver.metrics import Arrival
from psserver.progress import UpdateRow


def row(update: int, **changes: Any) -> UpdateRow:
    values = {
        "update": update,
        "seconds": float(update),
        "worker": 1,
        "version": update - 1,
        "staleness": 0,
        "loss": 0.5,
        "gradient_norm": 1.0,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "target_momentum": 0.9,
        "total_momentum": None,
    }
    return UpdateRow(**{**values, **changes})


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def write(record: RunRecord, updates: range) -> None:
    for update in updates:
        record.update(row(update), [Arrival(1, update)])


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    write(record, range(1, 3))
    assert [r["update"] for r in read(tmp_path, "metrics")] in ([1], [1, 2])
    record.flush()
    assert [r["update"] for r in read(tmp_path, "metrics")] == [1, 2]
    assert read(tmp_path, "arrivals")[1] == {
        "update": 2, "worker": 1, "step": 2, "version": 1, "fresh": False, "refused": None,
    }  # fmt: skip
    record.event(1.5, "joined", 3, "worker 3 joined")
    assert read(tmp_path, "events") == [{"seconds": 1.5, "kind": "joined", "worker": 3, "text": "worker 3 joined"}]
    record.close()


def test_a_row_has_the_columns_that_were_promised(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    write(record, range(1, 2))
    record.close()
    assert " ".join(read(tmp_path, "metrics")[0]) == (
        "update seconds worker version staleness loss gradient_norm learning_rate momentum target_momentum "
        "total_momentum pull"
    )


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    record.update(row(1, loss=math.nan, gradient_norm=math.inf), [])
    record.evaluation(1, 2.0, {"accuracy": math.nan, "update": 7.0, "seconds": math.nan})
    record.summary({"final_train_loss": -math.inf})
    record.close()
    assert (read(tmp_path, "metrics")[0]["loss"], read(tmp_path, "metrics")[0]["gradient_norm"]) == (None, None)
    assert read(tmp_path, "evaluations") == [{"update": 1, "seconds": 2.0, "accuracy": None}]
    assert json.loads((tmp_path / "summary.json").read_text()) == {"final_train_loss": None}


def test_a_refused_push_has_a_row_of_its_own_that_is_cut_with_its_update(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    for update in (1, 2):
        record.update(row(update), [Arrival(0, update, fresh=update == 1)])
        record.refused(update, 0, Arrival(1, update), "stale")
    record.close()
    rows = read(tmp_path, "arrivals")
    assert " ".join(rows[0]) == "update worker step version fresh refused"
    assert [(r["update"], r["worker"], r["fresh"], r["refused"]) for r in rows] == [
        (1, 0, True, None), (1, 1, False, "stale"), (2, 0, False, None), (2, 1, False, "stale"),
    ]  # fmt: skip
    RunRecord(tmp_path, resume_at=1).close()
    assert read(tmp_path, "arrivals") == rows[:2]


@pytest.mark.parametrize("torn", [b"", b'{"update": 7, "sec', b"\x00\x00"])
def test_a_resumed_run_goes_on_after_its_checkpoint(tmp_path: Path, torn: bytes) -> None:
    lost = RunRecord(tmp_path)
    write(lost, range(1, 7))
    lost.evaluation(3, 1.0, {"loss": 1.0})
    lost.evaluation(6, 2.0, {"loss": 1.0})
    lost.event(2.0, "joined", 1, "worker 1 joined")
    lost.close()
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    record = RunRecord(tmp_path, resume_at=4)
    write(record, range(5, 7))
    record.close()
    assert [r["update"] for r in read(tmp_path, "metrics")] == [1, 2, 3, 4, 5, 6]
    assert [r["update"] for r in read(tmp_path, "arrivals")] == [1, 2, 3, 4, 5, 6]
    assert [r["update"] for r in read(tmp_path, "evaluations")] == [3]
    assert len(read(tmp_path, "events")) == 1, "what happened has happened"


def test_a_new_run_starts_its_files_anew(tmp_path: Path) -> None:
    for _ in range(2):
        record = RunRecord(tmp_path)
        write(record, range(1, 3))
        record.close()
    assert len(read(tmp_path, "metrics")) == 2


def test_the_summary_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    record.summary({"updates": 1})
    with pytest.raises(TypeError):
        record.summary({"updates": object()})
    record.close()
    assert json.loads((tmp_path / "summary.json").read_text()) == {"updates": 1}
    assert not list(tmp_path.glob("*.part"))
