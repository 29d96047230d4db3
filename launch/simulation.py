"""One process, exact staleness: the same server, tuner and task as a real run, in an order that is chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from launch.arrivals import Arrivals, Drawn, InTurn, Queue, Turn, service_means
from launch.build import initial_model, make_evaluator, make_server, make_task
from launch.experiment import Experiment
from launch.run import Run
from launch.rundir import RunDir
from launch.supervisor import RunFailed
from launch.trace import Trace
from psserver import Checkpoints, ParameterServer
from psserver.errors import ConfigurationError, RefusedError
from psserver.wire import Goodbye, Hello, Parameters, Pull, Push, Refusal, Reply, Report, Slot, Stop, Welcome
from worker import Evaluator, Gradient, Shard, Task
from worker.curvature import due
from worker.model import pick_device


class VirtualWorker:
    """A worker without a process: holds a version, and computes its gradient there when it is its turn to push.

    given:   the version it computes at, None while it waits for one.
    started: called whenever it is given one.
    """

    def __init__(self, key: str, server: ParameterServer, hello: Hello, started: Callable[[], None]) -> None:
        self.key = key
        welcome = server.handle(key, hello)
        if not isinstance(welcome, Welcome):
            raise RefusedError(f"simulate: expected Welcome, got {welcome}")
        self.welcome = welcome
        self.given: Parameters | None = None
        self._server, self._started = server, started
        self._step = welcome.step

    def pull(self) -> None:
        """Ask for the newest version, unless this is the one held; it may come later."""
        if self.given is None or self.given.version != self._server.version:
            self.given = None
            self.take(self._server.handle(self.key, Pull()))

    def take(self, reply: Reply | None) -> None:
        """What the server answers, now or later."""
        if isinstance(reply, Refusal):
            self.pull()
        elif isinstance(reply, Parameters):
            self.given = reply
            self._started()
        elif reply is not None and not isinstance(reply, Stop):
            raise RefusedError(f"simulate: expected Parameters, got {reply}")

    def push(self, gradient: Gradient, out: torch.Tensor, step: int | None) -> None:
        """Compute at the version held, and push; `step` None is the next one."""
        given = self.given
        if given is None or isinstance(given.values, Slot):
            return
        self._step = self._step + 1 if step is None else step
        self.given = None
        loss, _ = gradient.compute(given.values, out, self._step)
        every = self.welcome.buffers_every
        report = self._step % every == 1 % every and gradient.layout.buffer_size > 0
        buffers = gradient.buffers() if report else None
        session, fresh = self.welcome.session, gradient.restarted
        wanted = due(self._step, self.welcome.worker, self.welcome.curvature_every)
        curvature = gradient.curvature() if wanted else None
        push = Push(session, self._step, given.version, loss, out.numpy(), buffers, fresh, curvature)
        self.take(self._server.handle(self.key, push))


def run_simulation(experiment: Experiment, run_dir: Path, show: Callable[[str], None] = print) -> Run:
    """Simulate a run in the order that `experiment.simulate` chooses.

    Time is virtual: a gradient takes a second on each worker (on average, where service times are drawn). As many
    versions are kept as workers hold, so thousands of workers are possible. Bit-reproducible: the same experiment
    gives the same bytes in every file. Raises RunFailed when the run diverges.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    one_thread = experiment.launch.model_copy(update={"threads": 1})
    experiment.model_copy(update={"launch": one_thread}).write(RunDir(run_dir).experiment)
    torch.set_num_threads(1)
    task = make_task(experiment)
    model, _ = initial_model(experiment, task)
    # Nothing is shared with other processes, and versions get memory as they are held.
    private = dataclasses.replace(experiment.server, shared_memory=False, slots=experiment.server.slots or 3)
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


def make_arrivals(experiment: Experiment) -> Arrivals:
    """The arrival process that `[simulate]` names. Raises ConfigurationError for a trace that does not fit."""
    options, train = experiment.simulate, experiment.train
    match options.staleness:
        case "none" | "round-robin":
            return InTurn(train.workers, newest=options.staleness == "none")
        case "memoryless":
            return Drawn(train.workers, train.seed)
        case "stragglers" if options.stragglers > train.workers:
            raise ConfigurationError(
                f"simulate.stragglers: expected at most {train.workers} (train.workers), got {options.stragglers}"
            )
        case "gamma" | "stragglers":
            return Queue(service_means(options, train.workers), options.shape, train.seed)
        case "trace":
            if experiment.server.mode == "synchronous":
                raise ConfigurationError("simulate.staleness: expected no 'trace' in synchronous mode")
            return Trace(Path(options.trace or ""), train.workers, train.updates)


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
    fleet = Fleet(server, make_gradients(experiment, task, device), arrivals)
    evaluation = _Evaluation(server, make_evaluator(experiment, task), fleet.hello, experiment)
    while server.phase in ("waiting", "training"):
        version = server.version
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


class Fleet:
    """The virtual workers, and one place where their gradients are computed, one after another."""

    def __init__(self, server: ParameterServer, gradients: list[Gradient], arrivals: Arrivals) -> None:
        layout = gradients[0].layout
        self.hello = Hello("worker", layout.digest, layout.size, layout.buffer_size, None, "simulated", "", 0, False)
        self._server = server
        self._gradients = gradients
        # A synchronous round keeps every worker's gradient until it closes; else one buffer serves them in turn.
        buffers = len(gradients) if server.options.mode == "synchronous" else 1
        self._outs = [torch.empty(layout.size) for _ in range(buffers)]
        self._workers = [self._worker(rank, arrivals) for rank in range(len(gradients))]
        self._held_back: set[int] = set()
        for rank, worker in enumerate(self._workers):
            worker.pull()
            self._deliver(rank)

    def take(self, turn: Turn) -> None:
        """Let workers pull, and the one whose turn it is push."""
        for rank in turn.pulls:
            self._workers[rank].pull()
            self._deliver(rank)
        rank = turn.worker
        worker, given = self._workers[rank], self._workers[rank].given
        if turn.version is not None and (given is None or given.version != turn.version):
            raise ConfigurationError(
                f"simulate.trace: expected worker {rank} to be at version {turn.version}, got "
                f"{'nothing' if given is None else given.version}; is server.max_staleness that of the recorded run?"
            )
        worker.push(self._gradients[rank], self._outs[rank % len(self._outs)], turn.step)
        self._deliver(rank)

    def _worker(self, rank: int, arrivals: Arrivals) -> VirtualWorker:
        hello = dataclasses.replace(self.hello, rank=rank)
        return VirtualWorker(f"worker-{rank}", self._server, hello, lambda: arrivals.started(rank))

    def _deliver(self, asked: int) -> None:
        """Hand out the replies that were held back (bounded staleness, synchronous rounds), if there are any."""
        (self._held_back.add if self._workers[asked].given is None else self._held_back.discard)(asked)
        if not self._held_back:
            return
        for key, reply in self._server.released():
            rank = int(key.removeprefix("worker-"))
            self._held_back.discard(rank)
            self._workers[rank].take(reply)


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
