"""TensorBoard's file: every row arrives once, also when the run or the follower starts again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, ScalarEvent
from tensorboard.summary.writer.record_writer import RecordWriter

from launch.local import _written
from launch.tensorboard import Follower, follow


def write(path: Path, updates: range, mode: str = "a", loss: float = 1.0) -> None:
    with path.open(mode) as file:
        for update in updates:
            file.write(
                json.dumps({"update": update, "seconds": update / 10, "loss": loss, "total_momentum": None}) + "\n"
            )


def read(run_dir: Path, tag: str = "train/loss") -> list[ScalarEvent]:
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return list(events.Scalars(tag))


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 11))
    return path


def test_rows_arrive_as_they_are_written(tmp_path: Path, metrics: Path) -> None:
    follower = Follower(tmp_path)
    assert (follower.step(), follower.step()) == (10, 0)
    with metrics.open("a") as file:
        file.write('{"update": 11, "seconds": 1.1, ')
        file.flush()
        assert follower.step() == 0
        file.write('"loss": 2.0}\n')
    follower.close()
    events = read(tmp_path)
    assert [event.step for event in events] == list(range(1, 12))
    assert events[-1].wall_time - events[0].wall_time == pytest.approx(1.0, abs=1e-3)


def test_evaluations_have_tags_of_their_own(tmp_path: Path, metrics: Path) -> None:
    (tmp_path / "evaluations.jsonl").write_text('{"update": 5, "seconds": 0.5, "accuracy": 0.25, "note": "text"}\n')
    Follower(tmp_path).close()
    assert [(event.step, event.value) for event in read(tmp_path, "evaluation/accuracy")] == [(5, 0.25)]


def test_what_was_not_measured_leaves_no_point(tmp_path: Path, metrics: Path) -> None:
    Follower(tmp_path).close()
    with pytest.raises(KeyError):
        read(tmp_path, "momentum/total")


def test_a_second_follower_leaves_every_point_once(tmp_path: Path, metrics: Path) -> None:
    Follower(tmp_path).close()
    write(metrics, range(11, 16))
    Follower(tmp_path).close()
    assert [event.step for event in read(tmp_path)] == list(range(1, 16))


def test_a_server_that_came_back_from_a_checkpoint_replaces_its_points(tmp_path: Path, metrics: Path) -> None:
    follower = Follower(tmp_path)
    follower.step()
    part = tmp_path / "metrics.part"
    write(part, range(1, 6))
    part.replace(metrics)
    write(metrics, range(6, 21), loss=3.0)
    follower.close()
    events = read(tmp_path)
    assert [event.step for event in events] == list(range(1, 21))
    assert [event.value for event in events] == [1.0] * 5 + [3.0] * 15


def test_long_runs_are_thinned(tmp_path: Path, metrics: Path) -> None:
    Follower(tmp_path, every=5).close()
    assert [event.step for event in read(tmp_path)] == [5, 10]


def test_following_ends_with_everything_written(tmp_path: Path, metrics: Path) -> None:
    done = threading.Event()
    thread = threading.Thread(target=follow, args=(tmp_path, done), kwargs={"seconds": 0.01})
    thread.start()
    write(metrics, range(11, 21))
    done.set()
    thread.join()
    assert len(read(tmp_path)) == 20


def test_a_file_that_cannot_be_written_is_said_and_ends_nothing(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", range(1, 11))
    follower, said = Follower(tmp_path), list[str]()
    full = Path("/dev/full").open("wb")  # noqa: SIM115 (the follower closes it)
    follower._file.close()
    follower._file = full
    follower._writer = RecordWriter(full)
    assert not _written(follower.close, said.append)
    assert full.closed
    assert "No space left" in said[0]
