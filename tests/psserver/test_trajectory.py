"""Versions that somebody may be reading never change; memory is used again when nobody does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserver.trajectory import Trajectory
from tests.psserver.running import SIZE, Running
from worker import ParameterClient

Make = Callable[..., Trajectory]


@pytest.fixture(params=["private", "shared"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    made = []

    def new(slots: int = 3, version: int = 0) -> Trajectory:
        directory = tmp_path if request.param == "shared" else None
        made.append(Trajectory(np.zeros(4, np.float32), version=version, slots=slots, directory=directory))
        return made[-1]

    yield new
    for trajectory in made:
        trajectory.close()
    assert list(tmp_path.iterdir()) == []


def advance(trajectory: Trajectory, times: int = 1) -> None:
    """Make versions whose every value is their number."""
    for _ in range(times):
        slot = trajectory.next_slot()
        slot.values[:] = trajectory.version + 1
        trajectory.commit(slot)


def test_the_newest_two_versions_are_always_there(make: Make) -> None:
    trajectory = make()
    for version in range(1, 20):
        advance(trajectory)
        assert trajectory.current.values[0] == trajectory.version == version
        assert trajectory.previous.values[0] == version - 1
    assert trajectory.slots == 3


def test_a_version_that_is_held_stays_as_it_is(make: Make) -> None:
    trajectory = make()
    advance(trajectory, 2)
    trajectory.hold(2)
    advance(trajectory, 10)
    assert trajectory.values(2).tolist() == [2.0] * 4
    trajectory.release(2)
    advance(trajectory, 3)
    assert trajectory.at(2) is None
    assert trajectory.slots == 4, "one was added while it was held; it is used again, not given back"


def test_a_version_that_is_held_again_while_its_memory_is_free_stays_too(make: Make) -> None:
    trajectory = make(slots=5)
    advance(trajectory, 3)
    for _ in range(3):
        trajectory.hold(1)
        trajectory.release(1)
    trajectory.hold(1)
    advance(trajectory, 10)
    assert trajectory.values(1).tolist() == [1.0] * 4
    trajectory.release(1)
    advance(trajectory, 10)
    assert (trajectory.at(1), trajectory.slots) == (None, 5)


def test_memory_that_a_lost_reader_may_still_read_is_never_used_again(make: Make) -> None:
    trajectory = make()
    advance(trajectory, 2)
    trajectory.hold(2)
    trajectory.hold(2)
    memory = trajectory.values(2)
    trajectory.release(2, unread=True)
    advance(trajectory, 5)
    assert trajectory.at(2) is not None, "somebody else still holds it"
    trajectory.release(2)
    advance(trajectory, 50)
    assert memory.tolist() == [2.0] * 4
    assert trajectory.at(2) is None
    assert trajectory.slots == 3


def test_a_restored_pair_goes_on_at_its_version(make: Make) -> None:
    trajectory = make(version=10)
    trajectory.restore_previous(np.full(4, 9.0, np.float32))
    assert (trajectory.version, trajectory.previous.version) == (10, 9)
    advance(trajectory, 5)
    assert (trajectory.version, trajectory.slots) == (15, 3)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(["advance", "hold", "release", "lose"]), st.integers(0, 5)), max_size=80))
def test_whatever_is_held_in_whatever_order_reads_as_it_was_written(steps: list[tuple[str, int]]) -> None:
    trajectory = Trajectory(np.zeros(4, np.float32), version=0, slots=3, directory=None)
    held: list[int] = []
    lost: list[tuple[int, np.ndarray]] = []
    for what, pick in steps:
        if what == "advance":
            advance(trajectory)
        elif what == "hold":
            trajectory.hold(trajectory.version)
            held.append(trajectory.version)
        elif held:
            version = held.pop(pick % len(held))
            if what == "lose":
                lost.append((version, trajectory.values(version)))
            trajectory.release(version, unread=what == "lose")
        assert all(trajectory.values(version)[0] == version for version in held)
        assert all(memory[0] == version for version, memory in lost)
        assert trajectory.slots <= 3 + len(set(held)) + len(lost) + 3


def test_a_snapshot_knows_when_its_memory_was_used_again() -> None:
    with Running("tcp://127.0.0.1:*", workers=2) as running, ParameterClient(running.address, SIZE) as client:
        snapshot = client.pull()
        assert snapshot.intact
        running.server.trajectory.release(0)  # as when the server gives a client up that goes on reading
        running.server.members.workers[0].holding = None
        with ParameterClient(running.address, SIZE) as other:
            given = other.pull()
            for _ in range(8):
                given = other.push(given, 1.0, np.ones(SIZE, np.float32))
        assert not snapshot.intact
        fresh = client.push(snapshot, 1.0, np.ones(SIZE, np.float32))
        assert (fresh.version, client.pushes, running.server.version) == (8, 0, 8), "it was not sent"
