"""Examines this machine: what is there, what is missing, what to do about it, and whether an experiment fits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.text import Text

from launch.numbers import bytes_shown
from psserver.errors import UserError

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_STANDS_ON = ("torch", "numpy", "pyzmq", "msgpack", "pydantic", "safetensors", "rich", "tensorboard", "matplotlib")
_SHM = Path("/dev/shm")
_MIB = 1 << 20


@dataclass(frozen=True)
class Finding:
    """One line: how it stands with a subject, and what to do when it does not stand well."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    text: str
    advice: str = ""


def examine(experiment: str | None = None) -> Iterator[Finding]:
    """The findings, each as soon as it is made. With an experiment also whether its task builds and fits."""
    yield from (_versions(), _cores(), _memory(), _shared_memory(), _disk(Path.cwd()), _accelerators())
    from launch.doctor_run import examine_data, examine_experiment, examine_round_trip

    yield examine_round_trip()
    yield from examine_data()
    if experiment is not None:
        yield from examine_experiment(experiment)


def show(findings: Iterator[Finding], console: Console | None = None) -> int:
    """Print a line for each finding; 1 when any of them is a failure, else 0."""
    console = console or Console()
    failed = False
    for finding in findings:
        failed = failed or finding.level == "fail"
        line = Text.assemble((f"{finding.level:<5}", _STYLES[finding.level]), (f"{finding.subject:<15}", "bold"))
        console.print(line.append(finding.text), soft_wrap=True)
        if finding.advice:
            console.print(Text(f"{'':20}{finding.advice}", style="dim"), soft_wrap=True)
    return int(failed)


def versions() -> dict[str, str]:
    """Name -> version of this package and of what it stands on; "missing" where it is not installed."""
    return {name: _version(name) for name in ("yellowfin-ps", *_STANDS_ON)}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _versions() -> Finding:
    found = versions()
    missing = [name for name in _STANDS_ON if found[name] == "missing"]
    words = ", ".join(f"{name} {number}" for name, number in found.items())
    if missing:
        return Finding("fail", "packages", words, f"run: pip install {' '.join(missing)}")
    return Finding("ok", "packages", words)


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    words = f"{usable} usable"
    if usable < 2:
        return Finding("warn", "cores", words, "server and workers will take turns; updates are slow but right")
    return Finding("ok", "cores", words)


def _memory() -> Finding:
    state = psutil.virtual_memory()
    words = f"{bytes_shown(state.available)} free of {bytes_shown(state.total)}"
    if state.available < 1024 * _MIB:
        return Finding("warn", "memory", words, "start with few workers: --workers 2")
    return Finding("ok", "memory", words)


def _shared_memory() -> Finding:
    without = "parameters then travel through sockets: --set server.shared_memory=false"
    if not _SHM.is_dir() or not os.access(_SHM, os.W_OK):
        return Finding("warn", "shared memory", f"{_SHM} is missing or not writable", without)
    usage = shutil.disk_usage(_SHM)
    words = f"{bytes_shown(usage.free)} free of {bytes_shown(usage.total)} in {_SHM}"
    left = [path for path in _SHM.glob("yfps-*") if path.stat().st_uid == os.getuid()]
    if usage.free < 64 * _MIB:
        return Finding("warn", "shared memory", words, f"in a container give it more (--shm-size), or {without}")
    if left:
        return Finding("ok", "shared memory", f"{words}; {len(left)} yfps-* segments of running servers")
    return Finding("ok", "shared memory", words)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    words = f"{bytes_shown(free)} free in {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("fail", "disk", f"{folder} is not writable", "change the folder, or say --run-dir")
    if free < 1024 * _MIB:
        return Finding("warn", "disk", words, "make room, or put the run elsewhere with --run-dir")
    return Finding("ok", "disk", words)


def _accelerators() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("fail", "accelerators", f"PyTorch cannot be imported: {error}", "run: pip install torch")
    if not torch.cuda.is_available():
        return Finding("ok", "accelerators", "no CUDA device: workers compute on the CPU")
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return Finding("ok", "accelerators", ", ".join(f"{d.name} ({bytes_shown(d.total_memory)})" for d in devices))


def tried(subject: str, error: UserError | OSError) -> Finding:
    """The failure of something that was tried out."""
    return Finding("fail", subject, str(error).replace("\n", "; "))
