"""`yfps bench`: updates per second of a real server and workers that compute nothing, beside what limits them."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from launch import bench_simulator, bench_update
from psserver import Model, ParameterServer, Plan, RuleOptions, ServerOptions, serve
from psserver.metrics import Arrival, NoRecord
from psserver.progress import UpdateRow
from psserver.rules import make_rule
from psserver.trajectory import Trajectory
from psserver.update import Updater
from tuner import TunerOptions, build
from worker import ParameterClient, RunOver

_PLAIN = TunerOptions(target="constant", learning_rate=1e-3, momentum=0.5, loop="open", sample=1)
_FULL = TunerOptions(target="yellowfin", loop="closed")
_UNSAMPLED = TunerOptions(target="yellowfin", loop="closed", estimator="lag")
_WEIGHT_DECAY = 2e-4


class _Times(NoRecord):
    """When each update was made."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def update(self, row: UpdateRow, arrivals: Sequence[Arrival]) -> None:
        self.seconds.append(row.seconds)

    def rate(self) -> float:
        """Updates a second, without the first tenth."""
        steady = self.seconds[len(self.seconds) // 10 :]
        return (len(steady) - 1) / (steady[-1] - steady[0])


def main(arguments: list[str]) -> int:
    """Parse the command line and print the table."""
    return int(_command.main(args=arguments, prog_name="yfps bench", standalone_mode=False) or 0)


@click.command()
@click.option("--size", default=1_730_000, show_default=True, help="Parameters (ResNet-110 has 1.73 million).")
@click.option("--workers", default="1,4,16", show_default=True, help="Numbers of workers, separated by commas.")
@click.option(
    "--updates", default=400, type=click.IntRange(min=2), show_default=True, help="Updates of each measurement."
)
@click.option("--rounds", default=3, show_default=True, help="Repetitions, interleaved; the median is printed.")
@click.option("--simulator", is_flag=True, help="Instead: what `yfps simulate` adds to the gradients, on CIFAR-10.")
@click.option("--update", is_flag=True, help="Instead: milliseconds of an update, the default beside constants.")
@click.option(
    "--threads",
    default=1,
    type=click.IntRange(min=1),
    show_default=True,
    help="With --update: threads that the default is measured on, too.",
)
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder of CIFAR-10.")
def _command(
    size: int,
    workers: str,
    updates: int,
    rounds: int,
    simulator: bool,
    update: bool,
    threads: int,
    data_dir: Path | None,
) -> int:
    """Measure updates per second: gradients of SIZE float32 pushed by processes that compute nothing.

    Read them as ratios: the limits beside them were measured in the same minutes on the same machine.
    """
    if simulator:
        return bench_simulator.main(data_dir, rounds=rounds)
    if update:
        return bench_update.main(size, updates, threads)
    torch.set_num_threads(1)
    counts = [int(word) for word in workers.split(",")]
    measurements: dict[str, Callable[[], float]] = {
        "memcpy of one vector": lambda: _per_second(_copier(size)),
        "update alone, constant α and μ": lambda: _per_second(_updater(size, _PLAIN)),
        "update alone, YellowFin, loop by lag": lambda: _per_second(_updater(size, _UNSAMPLED)),
        "update alone, YellowFin and loop": lambda: _per_second(_updater(size, _FULL)),
    }
    for count in counts:
        measurements[f"{count} workers, constant"] = partial(_served, size, count, updates, _PLAIN)
        measurements[f"{count} workers, YellowFin and loop"] = partial(_served, size, count, updates, _FULL)
    measurements["4 workers, constant, frames"] = partial(_served, size, 4, updates // 2, _PLAIN, shared=False)
    found: dict[str, list[float]] = {name: [] for name in measurements}
    for _ in range(rounds):
        for name, measure in measurements.items():
            found[name].append(measure())
    _print(found, size, rounds)
    return 0


def _print(found: dict[str, list[float]], size: int, rounds: int) -> None:
    table = Table(title=f"{size:,} parameters, median of {rounds} rounds, {os.cpu_count()} cores")
    for column in ("", "per second", "ms", "of the update alone", "min … max"):
        table.add_column(column, justify="left" if column == "" else "right")
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, rate in medians.items():
        alone = medians["update alone, YellowFin and loop" if "YellowFin" in name else "update alone, constant α and μ"]
        ratio = "" if "workers" not in name else f"{rate / alone:.2f}"
        spread = f"{min(found[name]):.0f} … {max(found[name]):.0f}"
        table.add_row(name, f"{rate:.0f}", f"{1000 / rate:.3f}", ratio, spread)
    Console(width=max(100, Console().width)).print(table)


def _per_second(step: Callable[[], object], seconds: float = 0.5) -> float:
    """How often `step` can be called in a second, warm."""
    for _ in range(5):
        step()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    return count / (time.perf_counter() - start)


def _copier(size: int) -> Callable[[], object]:
    source, target = torch.ones(size), torch.empty(size)
    return lambda: target.copy_(source)


def _updater(size: int, options: TunerOptions) -> Callable[[], object]:
    trajectory = Trajectory(np.zeros(size, np.float32), version=0, slots=4, directory=None)
    tuner = build(options, size, 1_000_000, 0)
    tuner.record(0, trajectory.current.tensor)
    updater = Updater(trajectory, make_rule(RuleOptions("momentum_sgd"), size), tuner, _WEIGHT_DECAY)
    gradient = torch.randn(size) * 1e-3
    return lambda: updater.apply(gradient, trajectory.version)


def _served(size: int, workers: int, updates: int, options: TunerOptions, shared: bool = True) -> float:
    """Updates a second through a real server, from `workers` processes."""
    folder = Path(tempfile.mkdtemp(prefix="yfps-"))
    address = f"ipc://{folder}/server"
    times = _Times()
    with _children(workers, lambda rank: _push_until_over(address, size, rank)):
        server = ParameterServer(
            Model(np.zeros(size, np.float32), np.zeros(0, np.float32), "bench"),
            Plan(updates, workers),
            build(options, size, updates, 0),
            RuleOptions("momentum_sgd", _WEIGHT_DECAY),
            ServerOptions(shared_memory=shared),
            times,
        )
        serve(server, address)
    shutil.rmtree(folder, ignore_errors=True)
    return times.rate()


def _push_until_over(address: str, size: int, rank: int) -> None:
    """A worker whose gradient is always there."""
    try:
        with ParameterClient(address, size, rank=rank) as client:
            client.gradient[:] = np.random.default_rng(rank).normal(size=size) * 1e-3
            snapshot = client.pull()
            while True:
                snapshot = client.push(snapshot, 1.0)
    except RunOver:
        return


@contextmanager
def _children(count: int, work: Callable[[int], Any]) -> Iterator[None]:
    """Forked processes that do `work(rank)`; waited for, or killed, at the end."""
    pids = []
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                work(rank)
            finally:
                os._exit(0)
        pids.append(pid)
    try:
        yield
    finally:
        for pid in pids:
            os.waitpid(pid, 0)
