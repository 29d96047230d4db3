"""How a result was obtained: the machine, the versions, and what a gradient costs here."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from launch.doctor import versions
from launch.experiment import Experiment
from launch.lab.points import cores
from launch.numbers import bytes_shown

_NAMED = ("yellowfin-ps", "torch", "numpy")


def hardware() -> str:
    """CPU model, cores this process may use, memory, and accelerators."""
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    parts = [f"{_cpu()}, {cores()} cores", f"{bytes_shown(psutil.virtual_memory().total)} of memory"]
    return ", ".join([*parts, *(devices or ["no GPU"])])


def software() -> str:
    """Python, and the packages that numbers depend on."""
    found = versions()
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {found[name]}" for name in _NAMED)])


def seconds_a_gradient(experiment: Experiment) -> float:
    """Seconds that one gradient of this experiment takes here, on one thread or on the device it would choose.

    Builds the task and opens its data. Raises DataError where they are missing.
    """
    import torch

    from launch.build import make_task
    from worker import Gradient, Shard
    from worker.model import pick_device

    torch.set_num_threads(1)
    task = make_task(experiment)
    device = pick_device(experiment.train.device, task)
    gradient = Gradient(task, Shard(0, 1, experiment.train.seed), device)
    out = torch.empty(gradient.layout.size)
    gradient.compute(gradient.initial, out, 1)
    started = time.perf_counter()
    gradient.compute(gradient.initial, out, 2)
    return time.perf_counter() - started


def estimate(work: Sequence[tuple[Experiment, int]], jobs: int) -> str:
    """How long these experiments' gradients take at most, `jobs` at a time, from one measured of each task."""
    measured: dict[str, float] = {}
    seconds = 0.0
    for experiment, gradients in work:
        kind = experiment.task.model_dump_json()
        if kind not in measured:
            measured[kind] = seconds_a_gradient(experiment)
        seconds += measured[kind] * gradients
    count = sum(gradients for _, gradients in work)
    hours = seconds / 3600 / jobs
    long = f"{hours / 24:,.1f} days" if hours > 48 else f"{hours:,.1f} hours"
    each = ", ".join(f"{1000 * value:,.0f} ms" for value in measured.values())
    return f"{len(work)} runs, {count:,} gradients of {each} as measured here: at most {long} with {jobs} at a time"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
