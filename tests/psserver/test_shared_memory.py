"""Segments: reserved before use, removed by their owner or after its death, read-only where that was asked."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from psserver.errors import SharedMemoryError
from psserver.shared_memory import Segment, sweep
from tests.psserver.running import ROOT, Running, new_server
from worker import ParameterClient


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="test-") as name:
        yield Path(name)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A memory file system of 1 MB."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_what_the_owner_writes_others_read(folder: Path) -> None:
    mine = Segment.create(folder, 5)
    other = Segment.attach(mine.path, 5, writable=False)
    mine.values[:] = np.arange(5)
    mine.version = 7
    assert (other.version, other.values.tolist()) == (7, [0, 1, 2, 3, 4])
    mine.writing()
    assert other.version == -1
    mine.close()


def test_the_mapping_outlives_the_file(folder: Path) -> None:
    mine = Segment.create(folder, 5)
    other = Segment.attach(mine.path, 5, writable=True)
    mine.close()
    mine.close()
    assert list(folder.iterdir()) == []
    other.values[0] = 3.0
    assert mine.values[0] == 3.0


def test_a_segment_attached_for_reading_cannot_be_written(folder: Path) -> None:
    mine = Segment.create(folder, 5)
    other = Segment.attach(mine.path, 5, writable=False)
    with pytest.raises(ValueError, match="read-only"):
        other.values[0] = 1.0
    mine.close()


@pytest.mark.parametrize("size", [4, 6])
def test_a_file_of_another_length_is_refused(folder: Path, size: int) -> None:
    mine = Segment.create(folder, 5)
    with pytest.raises(SharedMemoryError, match=f"expected {64 + 4 * size} bytes, found 84"):
        Segment.attach(mine.path, size, writable=False)
    mine.close()


def test_a_missing_file_a_link_and_a_folder_are_refused(folder: Path) -> None:
    mine = Segment.create(folder, 5)
    (folder / "link").symlink_to(mine.path)
    for name in ("nothing", "link", "."):
        with pytest.raises(SharedMemoryError, match="shared memory"):
            Segment.attach(folder / name, 5, writable=False)
    mine.close()


def test_attaching_keeps_no_files_open(folder: Path) -> None:
    mine = Segment.create(folder, 5)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        Segment.attach(mine.path, 5, writable=False)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    mine.close()


def test_too_little_room_is_a_sentence_before_anything_is_written(tiny: Path) -> None:
    with pytest.raises(SharedMemoryError, match=r"expected 4\.0 MB for .* in .* \(1\.0 MB free\)"):
        Segment.create(tiny, 1_000_000)
    assert list(tiny.iterdir()) == []


def test_a_server_that_does_not_fit_says_so_and_leaves_nothing(tiny: Path) -> None:
    with pytest.raises(SharedMemoryError, match=r"server\.shared_memory=false"):
        new_server(size=100_000, workers=1, shared_memory_dir=str(tiny))
    assert list(tiny.iterdir()) == []


def test_a_file_size_limit_is_a_sentence_too(folder: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(SharedMemoryError, match="File too large"):
            Segment.create(folder, 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(folder.iterdir()) == []


def test_a_worker_that_finds_no_room_for_its_gradient_sends_frames(tiny: Path) -> None:
    size = 50_000  # four versions take 0.8 MB of the 1.0
    options = {"size": size, "workers": 1, "shared_memory_dir": str(tiny)}
    with (
        Running("tcp://127.0.0.1:*", **options) as running,
        ParameterClient(running.address, size) as first,
        ParameterClient(running.address, size) as second,
    ):
        for client in (first, second):
            snapshot = client.push(client.pull(), 1.0, np.ones(size, np.float32))
            assert snapshot.segment is not None, "parameters are still read in place"
        assert (first.welcome.gradient is None, second.welcome.gradient is None) == (False, True)
        told = [text for kind, _, text in running.rows.events if kind == "memory"]
        assert told[0].startswith("worker 1 must send frames: shared memory: expected 0.2 MB")


def test_a_shortage_in_the_middle_of_a_run_does_not_end_it(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = 50_000
    options = {"size": size, "workers": 1, "slots": 3, "shared_memory_dir": str(tiny)}
    with contextlib.ExitStack() as closing:
        running = closing.enter_context(Running("tcp://127.0.0.1:*", **options))
        client, *readers = [closing.enter_context(ParameterClient(running.address, size)) for _ in range(4)]
        snapshot = client.pull()
        for reader in readers:
            reader.join()
            reader.pull()
            snapshot = client.push(snapshot, 1.0, np.ones(size, np.float32))
        for _ in range(5):
            snapshot = client.push(snapshot, 1.0, np.ones(size, np.float32))
        assert snapshot.version == 8
        # three are read, two are the newest, one is written; one sent as frames is held until ZeroMQ has sent it
        assert running.server.trajectory.slots >= 6
        assert "one more version is kept in private memory" in caplog.text


OWNER = "import sys, time; from pathlib import Path; from psserver.shared_memory import Segment\n"
OWNER += "s = Segment.create(Path(sys.argv[1]), 5); print(s.path.name, flush=True); time.sleep(60)"


def test_only_segments_whose_owner_died_are_swept(folder: Path) -> None:
    mine = Segment.create(folder, 5)
    (folder / "yfps-results.txt").touch()
    script = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert sweep(folder) == []
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert sweep(folder) == [name]
    assert {path.name for path in folder.iterdir()} == {mine.path.name, "yfps-results.txt"}
    mine.close()
