"""Arrival processes by themselves: the staleness they beget, the time they take, and traces that do not fit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import load_experiment
from launch.arrivals import Arrivals, Drawn, InTurn, Queue, service_means
from launch.experiment import SimulateOptions
from launch.order import make_arrivals
from launch.trace import Trace, read_arrivals
from psserver.errors import ConfigurationError

UPDATES = 20_000


def pushes(arrivals: Arrivals, workers: int, updates: int = UPDATES) -> tuple[np.ndarray, np.ndarray]:
    """Worker and staleness of each update, as an asynchronous server would see them."""
    held = [0] * workers
    for worker in range(workers):
        arrivals.started(worker)
    seen = []
    for version in range(updates):
        turn = arrivals.turn(version)
        assert turn is not None
        for worker in turn.pulls:
            held[worker] = version
        seen.append((turn.worker, version - held[turn.worker]))
        held[turn.worker] = version + 1
        arrivals.started(turn.worker)
    pairs = np.array(seen)
    return pairs[:, 0], pairs[:, 1]


def gamma(workers: int, shape: float, seed: int = 1, **options: Any) -> Queue:
    return Queue(service_means(SimulateOptions(shape=shape, **options), workers), shape, seed)


def test_in_turn_is_round_robin_or_never_stale() -> None:
    workers, staleness = pushes(InTurn(5, newest=False), 5, 100)
    assert workers.tolist() == [0, 1, 2, 3, 4] * 20
    assert staleness.tolist() == [0, 1, 2, 3] + [4] * 96
    assert not pushes(InTurn(5, newest=True), 5, 100)[1].any()


@pytest.mark.parametrize("process", [Drawn(8, 1), gamma(8, 1.0)], ids=["memoryless", "gamma of shape 1"])
def test_memoryless_staleness_is_geometric_with_mean_m_minus_1(process: Arrivals) -> None:
    staleness = pushes(process, 8)[1][100:]
    assert staleness.mean() == pytest.approx(7, rel=0.02)
    assert staleness.var() == pytest.approx(7 * 8, rel=0.1)
    assert np.mean(staleness == 0) == pytest.approx(1 / 8, abs=0.01)


@pytest.mark.parametrize("shape", [0.5, 2.0, 20.0])
def test_mean_staleness_is_m_minus_1_whatever_the_shape(shape: float) -> None:
    assert pushes(gamma(16, shape), 16)[1][200:].mean() == pytest.approx(15, rel=0.01)


def test_the_larger_the_shape_the_nearer_to_round_robin() -> None:
    variances = [pushes(gamma(16, shape), 16)[1][200:].var() for shape in (1.0, 4.0, 100.0, 1e7)]
    assert variances == sorted(variances, reverse=True)
    workers, staleness = pushes(gamma(16, 1e10), 16, 1600)
    assert set(staleness[16:]) == {15}
    assert workers.tolist() == workers[:16].tolist() * 100


def test_stragglers_are_slower_by_their_factor_and_staler() -> None:
    workers, staleness = pushes(gamma(8, 4.0, staleness="stragglers", stragglers=2, slowdown=5.0), 8)
    counts = Counter(workers.tolist())
    slow, fast = (np.mean([counts[w] for w in group]) for group in (range(2), range(2, 8)))
    assert fast / slow == pytest.approx(5, rel=0.1)
    assert staleness[workers < 2].mean() == pytest.approx(5 * (6 + 1 / 5), rel=0.05)
    assert staleness[workers >= 2].mean() == pytest.approx(5 + 2 / 5, rel=0.05)


@pytest.mark.parametrize(("slow", "rate"), [(0, 8.0), (2, 6.4)])
def test_time_is_that_of_the_events_from_the_first_second_on(slow: int, rate: float) -> None:
    early, late = [], []
    for seed in range(60):
        queue = gamma(8, 4.0, seed, staleness="stragglers", stragglers=slow, slowdown=5.0)
        for worker in range(8):
            queue.started(worker)
        times = []
        for _ in range(200):
            turn = queue.turn(0)
            assert turn is not None
            times.append(queue.seconds(0))
            queue.started(turn.worker)
        assert times == sorted(times)
        early.append(np.searchsorted(times, 1.0))
        late.append(np.searchsorted(times, 15.0) / 15)
    assert np.mean(early) == pytest.approx(rate, rel=0.1)
    assert np.mean(late) == pytest.approx(rate, rel=0.03)


def test_a_queue_of_which_everybody_waits_has_no_turn() -> None:
    assert gamma(3, 4.0).turn(0) is None


def write(path: Path, *rows: tuple[int, int, int, int], refused: str | None = None) -> Path:
    keys = ("update", "worker", "step", "version")
    lines = [json.dumps({**dict(zip(keys, row, strict=True)), "fresh": False, "refused": refused}) for row in rows]
    path.write_text("\n".join([*lines, ""]))
    return path


def test_a_trace_pulls_the_recorded_versions_and_ends(tmp_path: Path) -> None:
    trace = Trace(write(tmp_path / "arrivals.jsonl", (1, 0, 1, 0), (2, 1, 4, 0), (3, 0, 3, 2)), 2, 3)
    turns = [trace.turn(version) for version in range(4)]
    assert [(t.worker, t.pulls, t.step, t.version) for t in turns if t] == [
        (0, (0, 1), 1, 0),
        (1, (), 4, 0),
        (0, (0,), 3, 2),
    ]
    assert turns[3] is None


def test_a_trace_goes_no_further_when_a_push_was_refused(tmp_path: Path) -> None:
    trace = Trace(write(tmp_path / "a.jsonl", (1, 0, 1, 0), (2, 0, 2, 1)), 1, 2)
    assert (trace.turn(0) is None, trace.turn(0)) == (False, None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, 0, 1, 0)], "expected an arrival for each of the 2 updates, got 1; set train.updates=1"),
        ([(1, 0, 1, 0), (1, 1, 1, 0)], "expected one arrival an update"),
        ([(1, 0, 1, 0), (2, 7, 1, 0)], "expected a worker below 4, got 7"),
        ([(1, 0, 1, 0), (2, 0, 2, 0)], "expected a version from 1 to 1, got 0"),
        ([(1, 0, 1, 1), (2, 1, 1, 0)], "expected a version from 0 to 0, got 1"),
    ],
)
def test_a_trace_that_does_not_fit_is_refused(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Trace(write(tmp_path / "arrivals.jsonl", *rows), 4, 2)


def test_rows_of_another_form_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "arrivals.jsonl", (1, 0, 1, 0))
    path.write_text(path.read_text() + '{"update": 2, "worker": 0}\n')
    with pytest.raises(ConfigurationError, match=r"line 2: expected update, worker, step, version, fresh, refused"):
        read_arrivals(tmp_path)
    with pytest.raises(ConfigurationError, match="found none"):
        read_arrivals(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("simulate.staleness=trace", "trace: expected the folder of a recorded run"),
        ("simulate.shape=0", "simulate.shape: expected a number above 0.0, got 0"),
        ("simulate.slowdown=nan", "simulate.slowdown: expected a finite number"),
        ("simulate.stragglers=-1", "simulate.stragglers: expected 0 or more, got -1"),
        ("simulate.staleness=roundrobin", "expected 'none', 'round-robin', 'memoryless'"),
        ("simulate.slow=2", "unknown key 'slow' in section .simulate.; did you mean 'slowdown'"),
    ],
)
def test_mistakes_in_the_section_are_told(setting: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_experiment("quadratic", [setting])


def test_a_trace_is_for_asynchronous_runs() -> None:
    experiment = load_experiment(
        "quadratic", ["simulate.staleness=trace", "simulate.trace=x", "server.mode=synchronous"]
    )
    assert experiment.simulate.trace == str(Path("x").absolute())
    with pytest.raises(ConfigurationError, match="no 'trace' in synchronous mode"):
        make_arrivals(experiment)


def test_none_is_a_word_here() -> None:
    assert load_experiment("quadratic", ["simulate.staleness=none"]).simulate.staleness == "none"


def test_more_stragglers_than_workers_are_refused() -> None:
    settings = ["simulate.staleness=stragglers", "simulate.stragglers=9", "train.workers=8"]
    with pytest.raises(ConfigurationError, match="stragglers: expected at most 8"):
        make_arrivals(load_experiment("quadratic", settings))
