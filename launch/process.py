"""What each process of a run does: the server, a worker, the evaluator, and the rehearsal before them."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch

from launch.build import initial_model, make_evaluator, make_server, make_task
from launch.experiment import Experiment, load_experiment
from launch.lives import record_life
from launch.rundir import RunDir
from psserver import serve
from psserver.errors import TaskError, YellowFinError
from worker import Gradient, ParameterClient, RunOver, Shard
from worker.load import user_traceback
from worker.loop import watch_over, work
from worker.model import pick_device

FAILED = 1
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_server_process(run_dir: Path, bind: list[str], resume: bool, parent: int) -> int:
    """Serve the run in `run_dir`; writes `server.json` once workers can connect.

    SIGTERM ends it with a checkpoint, and so does the end of the process `parent`.
    """
    signals: list[int] = []
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda got, frame: signals.append(got))
    experiment = load_experiment(run_dir)
    torch.set_num_threads(1)
    model, _ = initial_model(experiment, make_task(experiment))
    server, checkpoints = make_server(experiment, model, run_dir, resume=resume, clock=time.monotonic)
    try:
        record_life(run_dir, experiment, server.version)
    except BaseException:
        server.close()
        raise

    def bound(addresses: list[str]) -> None:
        place = run_dir / "server.json"
        RunDir(run_dir).summary.unlink(missing_ok=True)  # of the life that is now continued
        part = place.with_suffix(".part")
        part.write_text(json.dumps({"addresses": addresses, "pid": os.getpid()}))
        os.replace(part, place)

    def stopping() -> str | None:
        if signals:
            return f"stopped by {signal.Signals(signals[0]).name}"
        return None if os.getppid() == parent else "its supervisor is gone"

    summary = serve(server, bind, checkpoints=checkpoints, stopping=stopping, bound=bound)
    return FAILED if summary["reason"] == "failed" else 0


def run_worker(experiment: Experiment, connect: str, rank: int | None, local_rank: int, patience: float) -> int:
    """Compute gradients for the server at `connect` until the run is over; the exit code.

    Raises what stops it: AddressError, LayoutError, TaskError, ServerLostError.
    """
    interrupt = _Interrupt()
    torch.set_num_threads(worker_threads(experiment))
    task = make_task(experiment)
    device = pick_device(experiment.train.device, task, local_rank)
    model, layout = initial_model(experiment, task)
    size, buffer_size = model.parameters.size, model.buffers.size
    try:
        with ParameterClient(
            connect, size, buffer_size=buffer_size, layout=layout.digest, rank=rank, patience=patience
        ) as client:
            welcome = client.welcome
            shard = Shard(welcome.worker, welcome.workers, welcome.seed)
            over = work(client, Gradient(task, shard, device), interrupt.check)
            print(f"worker {welcome.worker}: {over} ({client.pushes} pushes, {client.rejected} refused)")
            return FAILED if over.reason == "failed" else 0
    except RunOver as over:  # before it could join
        print(f"the run is over: {over}")
        return 0


class _Interrupt:
    """Ctrl-C that is not lost: Python drops a KeyboardInterrupt that happens to be raised inside a destructor."""

    def __init__(self) -> None:
        self._pressed = False
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._press)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise it again if it was dropped."""
        if self._pressed:
            raise KeyboardInterrupt


def run_evaluator(experiment: Experiment, connect: str, patience: float) -> int:
    """Evaluate versions of the server at `connect` until the run is over."""
    torch.set_num_threads(1)
    task = make_task(experiment)
    evaluator = make_evaluator(experiment, task)
    layout = evaluator.layout
    try:
        with ParameterClient(
            connect,
            layout.size,
            buffer_size=layout.buffer_size,
            layout=layout.digest,
            role="evaluator",
            patience=patience,
        ) as client:
            watch_over(client, evaluator, experiment.evaluate.every)
    except RunOver as over:
        print(f"the run is over: {over}")
    return 0


def rehearse(experiment: Experiment) -> int:
    """Compute one gradient as worker 0 would, so that what is wrong with a task or its data shows once, and first."""
    torch.set_num_threads(worker_threads(experiment))
    task = make_task(experiment)
    shard = Shard(0, experiment.train.workers, experiment.train.seed)
    gradient = Gradient(task, shard, pick_device(experiment.train.device, task))
    gradient.compute(gradient.initial, torch.empty(gradient.layout.size), 1)
    return 0


def guarded(name: str, run_dir: Path, run: Callable[[], int]) -> int:
    """Run one process of a run; what stops it goes to its log, and to `logs/NAME.failure` for the supervisor."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        return run()
    except YellowFinError as error:
        trace = user_traceback(error) if isinstance(error, TaskError) else ""
        print(trace or f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        failure = {"kind": type(error).__name__, "text": str(error), "trace": trace, "exit_code": error.exit_code}
        (run_dir / "logs" / f"{name}.failure").write_text(json.dumps(failure))
        return error.exit_code


def worker_threads(experiment: Experiment) -> int:
    """PyTorch threads that a worker computes with on a CPU; they decide over the last bits of its gradients."""
    return experiment.launch.threads or max(1, (os.cpu_count() or 1) // experiment.train.workers)
