"""One process, exact staleness: the same server, tuner and task as a real run, in an order that is chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from launch.arrivals import Staleness, arrivals
from launch.build import initial_model, make_server, make_task
from launch.experiment import Experiment
from launch.run import Run
from launch.rundir import RunDir
from launch.supervisor import RunFailed
from psserver import Checkpoints, ParameterServer
from psserver.errors import RefusedError
from psserver.wire import Goodbye, Hello, Parameters, Pull, Push, Refusal, Reply, Report, Slot, Stop, Welcome
from worker import Evaluator, Gradient, Shard, Task
from worker.model import pick_device


class VirtualWorker:
    """A worker without a process: holds a version, and computes its gradient there when it is its turn to push."""

    def __init__(self, key: str, server: ParameterServer, hello: Hello) -> None:
        self.key = key
        welcome = server.handle(key, hello)
        if not isinstance(welcome, Welcome):
            raise RefusedError(f"simulate: expected Welcome, got {welcome}")
        self.welcome = welcome
        self.given: Parameters | None = None
        self._server = server
        self._step = welcome.step

    def pull(self) -> None:
        """Ask for the newest version; it may come later."""
        self.take(self._server.handle(self.key, Pull()))

    def take(self, reply: Reply | None) -> None:
        """What the server answers, now or later."""
        if isinstance(reply, Refusal):
            self.pull()
        elif isinstance(reply, Parameters):
            self.given = reply
        elif reply is not None and not isinstance(reply, Stop):
            raise RefusedError(f"simulate: expected Parameters, got {reply}")

    def push(self, gradient: Gradient, out: torch.Tensor) -> None:
        """Compute at the version held, and push."""
        given = self.given
        if given is None or isinstance(given.values, Slot):
            return
        self._step += 1
        self.given = None
        loss, _ = gradient.compute(given.values, out, self._step)
        every = self.welcome.buffers_every
        report = self._step % every == 1 % every and gradient.layout.buffer_size > 0
        buffers = gradient.buffers() if report else None
        push = Push(self.welcome.session, self._step, given.version, loss, out.numpy(), buffers)
        self.take(self._server.handle(self.key, push))


def run_simulation(
    experiment: Experiment, run_dir: Path, staleness: Staleness, show: Callable[[str], None] = print
) -> Run:
    """Simulate a run. Time is virtual: a gradient takes a second on each worker, so M updates are made a second.

    Bit-reproducible: the same experiment and staleness give the same bytes in every file.
    Raises RunFailed when the run diverges.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    experiment.write(RunDir(run_dir).experiment)
    torch.set_num_threads(1)
    task = make_task(experiment)
    model, _ = initial_model(experiment, task)
    private = experiment.model_copy(update={"server": dataclasses.replace(experiment.server, shared_memory=False)})
    time = _VirtualTime(experiment.train.workers)
    server, checkpoints = make_server(private, model, run_dir, resume=False, clock=time)
    time.server = server
    try:
        _run(experiment, task, server, checkpoints, staleness, show)
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
    staleness: Staleness,
    show: Callable[[str], None],
) -> None:
    """Let the virtual workers push until the run is over."""
    device = pick_device(experiment.train.device, task)
    fleet = _Fleet(server, [Gradient(task, shard, device) for shard in _shards(experiment)])
    evaluation = _Evaluation(server, Evaluator(task, device, experiment.train.seed), fleet.hello, experiment)
    order = arrivals(staleness, experiment.train.workers, experiment.train.seed)
    while server.phase in ("waiting", "training"):
        version = server.version
        fleet.turn(next(order), fresh=staleness == "none")
        if server.version == version:
            continue
        evaluation.maybe(show)
        if checkpoints is not None and checkpoints.due(server.version, server.plan.updates):
            checkpoints.save(server.version, server.state_dict())
    if checkpoints is not None:
        checkpoints.save(server.version, server.state_dict())


class _Fleet:
    """The virtual workers, and one place where their gradients are computed, one after another."""

    def __init__(self, server: ParameterServer, gradients: list[Gradient]) -> None:
        layout = gradients[0].layout
        self.hello = Hello("worker", layout.digest, layout.size, layout.buffer_size, None, "simulated", "", 0, False)
        self._server = server
        self._gradients = gradients
        # A synchronous round keeps every worker's gradient until it closes; else one buffer serves them in turn.
        buffers = len(gradients) if server.options.mode == "synchronous" else 1
        self._outs = [torch.empty(layout.size) for _ in range(buffers)]
        names = [f"worker-{rank}" for rank in range(len(gradients))]
        self._workers = [
            VirtualWorker(name, server, dataclasses.replace(self.hello, rank=rank)) for rank, name in enumerate(names)
        ]
        for worker in self._workers:
            worker.pull()
            self._deliver()

    def turn(self, rank: int, fresh: bool) -> None:
        """It is this worker's turn to push; `fresh`: at the newest version."""
        worker = self._workers[rank]
        if fresh:
            worker.pull()
        worker.push(self._gradients[rank], self._outs[rank % len(self._outs)])
        self._deliver()

    def _deliver(self) -> None:
        """Hand out the replies that were held back (bounded staleness, synchronous rounds)."""
        for key, reply in self._server.released():
            self._workers[int(key.removeprefix("worker-"))].take(reply)


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


class _VirtualTime:
    """Seconds in which every worker computes one gradient a second."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.server: ParameterServer | None = None

    def __call__(self) -> float:
        return self.server.version / self._workers if self.server is not None else 0.0


def _shards(experiment: Experiment) -> list[Shard]:
    train = experiment.train
    return [Shard(rank, train.workers, train.seed) for rank in range(train.workers)]
