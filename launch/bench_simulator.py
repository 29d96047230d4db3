"""`yfps bench --simulator`: what a simulated update costs beyond the gradient itself, on ResNet-20."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from launch.build import initial_model, make_server, make_task
from launch.experiment import load_experiment
from launch.fleet import Fleet
from launch.order import make_arrivals
from launch.simulation import make_gradients
from worker.model import pick_device

_CONFIG = "cifar10_resnet20_async16"


def main(
    data_dir: Path | None = None,
    batches: Sequence[int] = (32, 128),
    workers: int = 16,
    rounds: int = 5,
    settings: Sequence[str] = (),
) -> int:
    """Print, for each batch size, milliseconds of a gradient alone and of a simulated update, and their ratio.

    A round is `workers` gradients of one worker alone, then as many updates of a memoryless simulation with YellowFin,
    the loop and the record; the median of the rounds' ratios is printed. Processor time of one thread, so that other
    programs disturb little. Raises DataError when CIFAR-10 is nowhere.
    """
    torch.set_num_threads(1)
    title = f"ResNet-20 on CIFAR-10, {workers} simulated workers, median of {rounds} rounds of {workers} gradients"
    table = Table(title=title)
    for column in ("batch", "gradient, ms", "simulated update, ms", "simulator adds", "min … max"):
        table.add_column(column, justify="right")
    data = [f"data.dir={str(data_dir)!r}"] if data_dir is not None else []
    for batch in batches:
        own = [f"task.arguments.batch={batch}", f"train.workers={workers}", "simulate.staleness=memoryless"]
        alone, simulated = _measure([*data, *own, *settings], workers, rounds)
        added = [100 * (s / a - 1) for a, s in zip(alone, simulated, strict=True)]
        table.add_row(
            str(batch),
            f"{statistics.median(alone):.2f}",
            f"{statistics.median(simulated):.2f}",
            f"{statistics.median(added):.1f} %",
            f"{min(added):.1f} … {max(added):.1f} %",
        )
    Console(width=max(100, Console().width)).print(table)
    return 0


def _measure(settings: Sequence[str], workers: int, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of a gradient alone and of a simulated update, a pair each round."""
    experiment = load_experiment(_CONFIG, [*settings, "server.shared_memory=false"])
    task = make_task(experiment)
    model, _ = initial_model(experiment, task)
    device = pick_device(experiment.train.device, task)
    (gradient, *_) = make_gradients(experiment, task, device)
    out, steps = torch.empty(gradient.layout.size), iter(range(1, 1_000_000))
    with tempfile.TemporaryDirectory(prefix="yfps-") as folder:
        arrivals = make_arrivals(experiment)
        server, _ = make_server(experiment, model, Path(folder), resume=False, clock=lambda: 0.0)
        try:
            fleet = Fleet(server, make_gradients(experiment, task, device), arrivals)

            def update() -> None:
                turn = arrivals.turn(server.version)
                if turn is not None:
                    fleet.take(turn)

            def compute() -> None:
                gradient.compute(model.parameters, out, next(steps))

            for _ in range(2 * workers):  # until everyone has opened its stream of batches, or nearly so
                update()
            compute()
            pairs = [(_milliseconds(compute, workers), _milliseconds(update, workers)) for _ in range(rounds)]
        finally:
            server.close()
    return [alone for alone, _ in pairs], [simulated for _, simulated in pairs]


def _milliseconds(step: Callable[[], object], times: int) -> float:
    """Of processor time that one call takes."""
    start = time.process_time()
    for _ in range(times):
        step()
    return 1000 * (time.process_time() - start) / times
