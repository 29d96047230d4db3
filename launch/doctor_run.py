"""The examination that runs something: a server with one worker, a search for data, an experiment's task."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch

from launch.doctor import Finding, tried
from launch.experiment import Experiment, load_experiment
from launch.numbers import bytes_shown
from psserver import Model, ParameterServer, Plan, ServerOptions, serve
from psserver.errors import UserError, YellowFinError
from tuner import TunerOptions, build
from worker import ParameterClient
from worker.data import resolve_data_dir
from worker.layout import Layout
from worker.load import load_task
from worker.model import build_model

_SIZE, _PUSHES = 1000, 50
_WORDS = "ptb.train.txt"
_DATA = {
    "CIFAR-10": ("cifar-10-batches-bin",),
    "CIFAR-100": ("cifar-100-binary",),
    "Penn Treebank": (f"ptb/{_WORDS}", f"ptb/{_WORDS}.xz", _WORDS, f"{_WORDS}.xz", "simple-examples.tgz"),
}


def examine_round_trip() -> Finding:
    """A server on a loopback port and one worker that pushes fifty gradients to it."""
    zeros = np.zeros(_SIZE, dtype=np.float32)
    tuner = build(TunerOptions(target="constant", momentum=0.0, loop="open"), _SIZE, _PUSHES, 0)
    server = ParameterServer(
        Model(zeros, zeros[:0], "doctor"), Plan(_PUSHES, 1), tuner, options=ServerOptions(shared_memory=False)
    )
    address: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    def bound(addresses: list[str]) -> None:
        address.extend(addresses)
        ready.set()

    thread = threading.Thread(
        target=serve,
        args=(server, "tcp://127.0.0.1:*"),
        kwargs={"bound": bound, "stopping": lambda: "stopped" if stop.is_set() else None},
    )
    thread.start()
    try:
        if not ready.wait(10):
            return Finding("fail", "round trip", "no server came up on a loopback port", "allow connections on lo")
        seconds = _push(address[0])
    except (YellowFinError, OSError) as error:
        return Finding("fail", "round trip", str(error), "allow TCP connections to 127.0.0.1 on this machine")
    finally:
        stop.set()
        thread.join()
    return Finding(
        "ok", "round trip", f"{1e6 * seconds / _PUSHES:.0f} µs to push {_SIZE} values over TCP and be answered"
    )


def _push(address: str) -> float:
    with ParameterClient(address, _SIZE, layout="doctor", patience=10.0) as client:
        snapshot = client.pull()
        started = time.perf_counter()
        for _ in range(_PUSHES - 1):
            snapshot = client.push(snapshot, 1.0, np.ones(_SIZE, dtype=np.float32))
        return time.perf_counter() - started


def examine_data() -> Iterator[Finding]:
    """Which data sets are there already."""
    folder = resolve_data_dir(None)
    here = [name for name, places in _DATA.items() if any((folder / p).exists() or folder.name == p for p in places)]
    found = f"{', '.join(here)} in {folder}" if here else f"none in {folder}"
    advice = (
        "" if here else "digits and the quadratic need none; others are downloaded, or say --data-dir or $YFPS_DATA"
    )
    yield Finding("ok", "data sets", found, advice)


def examine_experiment(source: str) -> Iterator[Finding]:
    """Whether the experiment reads, its task builds, and its vectors fit into memory."""
    try:
        experiment = load_experiment(source)
        folder = Path(experiment.data.dir) if experiment.data.dir else None
        task = load_task(experiment.task.function, experiment.task.arguments, folder)
        model = build_model(task, experiment.train.seed, torch.device("cpu"))
        layout = Layout.of(model)
    except UserError as error:
        yield tried("experiment", error)
        return
    yield Finding("ok", "experiment", f"{experiment.name}: {layout.size:,} parameters, {layout.buffer_size:,} buffers")
    yield _vectors(experiment, layout.size)
    yield _processes(experiment)


def vector_bytes(experiment: Experiment, size: int) -> int:
    """Bytes of the run's vectors, 4 each value: versions in memory and one gradient slot a worker."""
    workers = experiment.train.workers
    versions = experiment.server.slots or workers + 3
    return 4 * size * (versions + workers)


def _vectors(experiment: Experiment, size: int) -> Finding:
    needed = vector_bytes(experiment, size)
    if not experiment.server.shared_memory:
        return Finding(
            "ok", "vectors", f"{bytes_shown(needed)} for versions and gradients, in the processes' own memory"
        )
    place = Path(experiment.server.shared_memory_dir)
    if not place.is_dir():
        advice = "say --set server.shared_memory_dir=FOLDER or --set server.shared_memory=false"
        return Finding("fail", "vectors", f"{place} does not exist", advice)
    free = shutil.disk_usage(place).free
    words = f"{bytes_shown(needed)} of shared memory for versions and gradients, {bytes_shown(free)} free in {place}"
    if needed > free:
        return Finding(
            "fail", "vectors", words, "fewer --workers, more shared memory, or --set server.shared_memory=false"
        )
    return Finding("ok", "vectors", words)


def _processes(experiment: Experiment) -> Finding:
    """A worker takes at least what this process takes: the same imports and the same model."""
    one = psutil.Process().memory_full_info().uss
    count = experiment.train.workers + 1 + int(experiment.launch.evaluator)
    free = psutil.virtual_memory().available
    words = f"{count} processes of {bytes_shown(one)} or more (without activations), {bytes_shown(free)} free"
    if count * one > free:
        return Finding("warn", "processes", words, "fewer --workers, or workers on other hosts")
    return Finding("ok", "processes", words)
