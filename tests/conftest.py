"""What every test shares: one torch thread, the real CIFAR data, and a check that nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import settings

import psserver.checkpoint
import psserver.router
import worker.connection

SHARED_MEMORY = Path("/dev/shm")
PACKS = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
FOLDERS = ("cifar-10-batches-bin", "cifar-100-binary")
GRACE = 5.0
"""Seconds a process or thread that is ending may still take."""

settings.register_profile("a machine that others use too", deadline=None)
settings.load_profile("a machine that others use too")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> None:
    """Programs inherit that SIGINT is ignored, as it is for whatever a shell starts in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _nobody_in_threads_waits_long() -> Iterator[None]:
    """Servers and clients of the tests' own look up ten times as often as in a run; processes do as in a run."""
    quick = {
        psserver.router: {"_POLL_MS": 10, "_TICK_SECONDS": 0.025},
        worker.connection: {"_POLL_MS": 10, "_NEWS_SECONDS": 0.05, "_LINGER_MS": 200},
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, values in quick.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_checkpoint_waits_for_the_disk() -> Iterator[None]:
    """Thousands of checkpoints are written, and read by the same kernel; `test_checkpoint.py` has one that waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psserver.checkpoint, "_sync", lambda path: None)
        yield


@pytest.fixture(scope="session")
def cifar_data() -> Path:
    """A data folder with the published binary files of CIFAR-10 and CIFAR-100; skips where there is none."""
    named = Path(os.environ.get("YFPS_DATA", "."))
    kept = Path(tempfile.gettempdir()) / "yfps-test-data"
    for folder in (named, kept):
        if all((folder / name).is_dir() for name in FOLDERS):
            return folder
    if not (PACKS / "unpack.py").is_file():
        pytest.skip(f"no CIFAR data: $YFPS_DATA names no folder with {' and '.join(FOLDERS)}")
    pytest.importorskip("imagecodecs", reason="unpacking the CIFAR data needs imagecodecs")
    fresh = Path(tempfile.mkdtemp(prefix="yfps-test-data-"))
    subprocess.run([sys.executable, PACKS / "unpack.py", fresh, "cifar-10", "cifar-100"], check=True, timeout=110)
    try:
        fresh.rename(kept)
    except OSError:  # another run was quicker
        shutil.rmtree(fresh)
    return kept


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    before = _processes(), _threads(), _segments()
    yield
    deadline = time.monotonic() + GRACE
    while left := _left(*before):
        if time.monotonic() > deadline:
            pytest.fail(f"{request.node.name} left behind: {', '.join(left)}")
        time.sleep(0.02)


def _left(processes: set[psutil.Process], threads: set[threading.Thread], segments: set[Path]) -> list[str]:
    new = [path for path in _segments() - segments if not _mapped_elsewhere(path)]
    return [
        *(f"process {p.pid}" for p in _processes() - processes),
        *(f"thread {t.name!r}" for t in _threads() - threads if not t.daemon),
        *(f"shared memory {path}" for path in new),
    ]


def _processes() -> set[psutil.Process]:
    """Children of this process; the resource tracker of `multiprocessing` lives as long as we do."""
    return {p for p in psutil.Process().children(recursive=True) if not _is_tracker(p)}


def _is_tracker(process: psutil.Process) -> bool:
    try:
        return any("resource_tracker" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return True


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def _segments() -> set[Path]:
    return set(SHARED_MEMORY.glob("yfps-*"))


def _mapped_elsewhere(path: Path) -> bool:
    """Whether a process that is neither this one nor its child maps `path`: then it is not this test's."""
    ours = {os.getpid(), *(p.pid for p in _processes())}
    for maps in Path("/proc").glob("[0-9]*/maps"):
        if int(maps.parent.name) in ours:
            continue
        try:
            if str(path) in maps.read_text():
                return True
        except OSError:  # ended meanwhile, or not ours to read
            continue
    return False
