"""Work on parts of a vector: all of it is done, on as many threads as one says, and none outlives it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from psserver.options import RuleOptions, ServerOptions
from psserver.rules import make_rule
from psserver.spread import Spread
from psserver.trajectory import Trajectory
from psserver.update import Updater
from tuner import TunerOptions, build

TENSORS = tuple((number * 40_000, (200, 200)) for number in range(4))
SIZE = 4 * 40_000 + 300


@pytest.fixture(params=[1, 3])
def spread(request: pytest.FixtureRequest) -> Iterator[Spread]:
    made = Spread(request.param)
    yield made
    made.close()


def test_every_part_is_worked_on_once(spread: Spread) -> None:
    done: list[int] = []
    spread.each(done.append, range(100))
    assert sorted(done) == list(range(100))


def test_what_a_part_raises_comes_out_when_all_are_over(spread: Spread) -> None:
    done: list[int] = []

    def work(part: int) -> None:
        if part % 2 == 0:
            raise ValueError(f"part {part}")
        done.append(part)

    with pytest.raises(ValueError, match="part 0"):
        spread.each(work, [0, 1, 2, 3])
    running = [t for t in threading.enumerate() if t.name.startswith("update")]
    assert sorted(done) == ([1, 3] if running else [])
    spread.each(done.append, [5])
    assert done[-1] == 5


def test_one_thread_is_the_callers_own_and_several_end_with_it() -> None:
    seen: set[threading.Thread] = set()
    Spread(1).each(lambda part: seen.add(threading.current_thread()), range(4))
    assert seen == {threading.current_thread()}
    several, meeting, numbers = Spread(3), threading.Barrier(3, timeout=30), set()

    def work(part: int) -> None:
        meeting.wait()
        seen.add(threading.current_thread())
        numbers.add(torch.get_num_threads())

    several.each(work, range(3))
    assert (len(seen), numbers) == (4, {torch.get_num_threads()})
    several.close()
    assert [t for t in seen if t.is_alive()] == [threading.current_thread()]


@pytest.mark.parametrize(("decay", "target"), [(0.0, "distance"), (0.01, "yellowfin")])
def test_an_update_by_soap_has_the_same_bits_on_any_number_of_threads(
    spread: Spread, decay: float, target: str
) -> None:
    """Blocks of several sizes, weight decay, clipping by YellowFin, and a basis from update 3 on."""
    start = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    options = RuleOptions(weight_decay=decay, precondition_every=3)
    tuner = TunerOptions() if target == "distance" else TunerOptions(target="yellowfin", loop="closed")
    made = []
    for chosen in (None, spread):
        trajectory = Trajectory(start.numpy().copy(), version=0, slots=4, directory=None)
        tuning = build(tuner, SIZE, 100, 0)
        tuning.record(0, trajectory.current.tensor)
        made.append(Updater(trajectory, make_rule(options, SIZE, 1, TENSORS), tuning, options.gradient_decay, chosen))
    for seed in range(8):
        gradient = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed + 1)) * 10.0 ** (seed % 3)
        one, other = (each.apply(gradient, each.trajectory.version) for each in made)
        assert one == other
    assert torch.equal(made[0].trajectory.current.tensor, made[1].trajectory.current.tensor)
    assert not torch.equal(made[0].trajectory.current.tensor, start)


def test_as_many_threads_as_said_or_half_of_the_cores_up_to_four(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cores in (1, 2, 3, 6, 64):
        monkeypatch.setattr("os.sched_getaffinity", lambda process, cores=cores: set(range(cores)))
        found.append(ServerOptions().update_threads)
    assert found == [1, 1, 1, 3, 4]
    assert ServerOptions(threads=7).update_threads == 7
    with pytest.raises(ValueError, match="threads: expected 0 or more, got -1"):
        ServerOptions(threads=-1)
