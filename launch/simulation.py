"""One process, exact staleness: the same server, tuner and task as a real run, in an order that is chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from launch.arrivals import Arrivals
from launch.build import initial_model, make_evaluator, make_server, make_task
from launch.experiment import Experiment
from launch.fleet import Fleet
from launch.order import Presence, make_arrivals
from launch.run import Run
from launch.rundir import RunDir
from launch.supervisor import RunFailed
from psserver import Checkpoints, ParameterServer
from psserver.wire import Goodbye, Hello, Parameters, Pull, Report, Slot
from worker import Evaluator, Gradient, Shard, Task
from worker.model import pick_device


def run_simulation(experiment: Experiment, run_dir: Path, show: Callable[[str], None] = print) -> Run:
    """Simulate a run in the order that `experiment.simulate` chooses.

    Time is virtual: a gradient takes a second on each worker (on average, where service times are drawn). As many
    versions are kept as workers hold, so thousands of workers are possible. Workers that come or leave in mid-run say
    so to the server, as real ones do. Bit-reproducible: the same experiment gives the same bytes in every file. Raises
    RunFailed when the run diverges.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    one_thread = experiment.launch.model_copy(update={"threads": 1})
    experiment.model_copy(update={"launch": one_thread}).write(RunDir(run_dir).experiment)
    torch.set_num_threads(1)
    task = make_task(experiment)
    model, _ = initial_model(experiment, task)
    # Nothing is shared with other processes, and versions get memory as they are held.
    options = experiment.server
    private = dataclasses.replace(options, shared_memory=False, slots=options.slots or 3, threads=options.threads or 1)
    clock = _Clock(make_arrivals(experiment))
    server, checkpoints = make_server(
        experiment.model_copy(update={"server": private}), model, run_dir, resume=False, clock=clock
    )
    clock.server = server
    try:
        _run(experiment, task, server, checkpoints, clock.arrivals, show)
        summary = server.summary()
    finally:
        server.close()
    if summary["reason"] == "failed":
        raise RunFailed(summary["reason_text"])
    return Run(run_dir)


def _run(
    experiment: Experiment,
    task: Task,
    server: ParameterServer,
    checkpoints: Checkpoints | None,
    arrivals: Arrivals,
    show: Callable[[str], None],
) -> None:
    """Let the virtual workers push until the run is over."""
    device = pick_device(experiment.train.device, task)
    present = Presence.of(experiment)
    fleet = Fleet(server, make_gradients(experiment, task, device), arrivals, present)
    evaluation = _Evaluation(server, make_evaluator(experiment, task), fleet.hello, experiment)
    while server.phase in ("waiting", "training"):
        version = server.version
        fleet.change(version)
        turn = arrivals.turn(version)
        if turn is None:
            server.stop("failed", f"diverged: after update {version} a gradient of the recorded order was refused")
            break
        fleet.take(turn)
        if server.version == version:
            continue
        evaluation.maybe(show)
        if checkpoints is not None and checkpoints.due(server.version, server.plan.updates):
            checkpoints.save(server.version, server.state_dict())
    if checkpoints is not None:
        checkpoints.save(server.version, server.state_dict())


class _Evaluation:
    """Evaluates between two updates, as often as the experiment says, and at the end."""

    def __init__(self, server: ParameterServer, evaluator: Evaluator, hello: Hello, experiment: Experiment) -> None:
        self._server, self._evaluator, self._experiment = server, evaluator, experiment
        server.handle("evaluator", dataclasses.replace(hello, role="evaluator", rank=None))

    def maybe(self, show: Callable[[str], None]) -> None:
        """Evaluate if it is due; say how the run stands."""
        every, version = self._experiment.evaluate.every, self._server.version
        if version != self._experiment.train.updates and (every == 0 or version % every):
            return
        given = self._server.handle("evaluator", Pull())
        if isinstance(given, Parameters) and not isinstance(given.values, Slot) and not isinstance(given.buffers, Slot):
            found = self._evaluator.evaluate(given.values, given.buffers)
            self._server.handle("evaluator", Report(version, found))
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
            progress = self._server.journal.progress
            show(f"update {version}: training loss {progress.loss:.4g}" + (f", {numbers}" if numbers else ""))
        if version == self._experiment.train.updates:
            self._server.handle("evaluator", Goodbye("done", "", 0))


class _Clock:
    """Virtual seconds, as the arrival process counts them."""

    def __init__(self, arrivals: Arrivals) -> None:
        self.arrivals = arrivals
        self.server: ParameterServer | None = None

    def __call__(self) -> float:
        return self.arrivals.seconds(self.server.version) if self.server is not None else 0.0


def make_gradients(experiment: Experiment, task: Task, device: torch.device) -> list[Gradient]:
    """A gradient for each worker; they share one model."""
    train = experiment.train
    first, *others = (Shard(rank, train.workers, train.seed) for rank in range(train.workers))
    gradient = Gradient(task, first, device)
    return [gradient, *(gradient.another(shard) for shard in others)]
