"""What users do wrong: each ends with exit code 2 and one sentence that says what was expected, and leaves nothing."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there: no download gets through."""
RAISING = """
import dataclasses
from worker.zoo.digits import mlp
def raising():
    def my_own_loss(module, batch):
        raise ZeroDivisionError("in my own loss")
    return dataclasses.replace(mlp(hidden=16, layers=1), loss=my_own_loss)
"""


def sentence(program: Any) -> str:
    """The one thing it said on standard error."""
    assert program.code() == 2, program.out + program.err
    assert "Traceback" not in program.err
    (line,) = program.err.splitlines()
    assert line.startswith("yfps: ")
    return str(line)


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """A memory file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "yfps-test", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "tuner.gian=0.1"], ["tuner.gian", "did you mean", "gain"]),
        (["--set", "train.workers=many"], ["train.workers", "whole number", "many"]),
        (["--run-dir", "."], ["not empty", "--resume"]),
        (["--bind", "tcp://0.0.0.0:5555"], ["--insecure"]),
    ],
    ids=["unknown key", "wrong type", "folder in use", "open port"],
)
def test_a_wrong_option(options: list[str], words: list[str], slow: Path, yfps: Any) -> None:
    said = sentence(yfps("train", slow, *options))
    assert all(word in said for word in words), said


def test_missing_data_while_offline(yfps: Any, tmp_path: Path) -> None:
    run = yfps("train", "cifar10_resnet20_async16", "--data-dir", tmp_path / "none", https_proxy=NOWHERE)
    said = sentence(run)
    assert all(word in said for word in ("CIFAR-10", str(tmp_path / "none"), "cifar-10-binary.tar.gz", "--data-dir"))


def test_a_server_that_is_not_there(slow: Path, yfps: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    said = sentence(yfps("worker", slow, "--connect", f"tcp://127.0.0.1:{port}", "--patience", 1))
    assert f"tcp://127.0.0.1:{port}" in said
    assert "tried for 1 s" in said


def test_a_host_that_does_not_exist(slow: Path, yfps: Any) -> None:
    said = sentence(yfps("worker", slow, "--connect", "tcp://no-such-host.invalid:5555", "--patience", 1))
    assert "tcp://no-such-host.invalid:5555" in said


def test_a_port_in_use(slow: Path, yfps: Any, taken_port: int, tmp_path: Path) -> None:
    said = sentence(yfps("server", slow, "--bind", f"tcp://127.0.0.1:{taken_port}", "--run-dir", tmp_path / "run"))
    assert f"tcp://127.0.0.1:{taken_port}" in said
    assert "in use" in said


def test_another_model_than_the_servers(slow: Path, start: Any, yfps: Any, records: Any) -> None:
    run = records(slow.parent / "run")
    server = start("server", slow, "--bind", "tcp://127.0.0.1:*", "--run-dir", run.folder, "--updates", 20)
    (address,) = server.until(run.addresses)
    said = sentence(yfps("worker", slow, "--connect", address, "--set", "task.arguments.layers=2"))
    assert "model" in said
    assert "expected" in said
    assert yfps("worker", slow, "--connect", address).code() == 0
    assert server.code() == 0, server.err


@pytest.mark.parametrize("command", ["train", "worker"])
def test_a_task_that_raises(command: str, slow: Path, start: Any, yfps: Any, records: Any) -> None:
    (slow.parent / "raising.py").write_text(RAISING)
    run = records(slow.parent / "run")
    mine = ["--set", "task.function=raising.py:raising"]
    if command == "train":
        program = yfps("train", slow, *mine, "--run-dir", run.folder)
    else:
        server = start("server", slow, "--bind", "tcp://127.0.0.1:*", "--run-dir", run.folder)
        (address,) = server.until(run.addresses)
        program = yfps("worker", slow, *mine, "--connect", address)
        server.until(lambda: run.events("failed"))
        server.send(signal.SIGINT)
        assert server.code() == 130
    assert program.code() == 2
    lines = program.err.strip().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f'"{slow.parent}/raising.py", line 6, in my_own_loss' in lines[1]
    assert lines.index("ZeroDivisionError: in my own loss") < len(lines) - 1
    assert lines[-1].startswith("yfps: ")
    assert "ZeroDivisionError: in my own loss" in lines[-1]


def test_no_room_for_a_checkpoint(slow: Path, start: Any) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        train = start("train", slow)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = sentence(train)
    assert "checkpoint: expected room for" in said
    assert "File too large" in said


def test_a_disk_that_fills_up_on_the_way(slow: Path, start: Any, records: Any, small_memory: Path) -> None:
    """Checkpoints go to a full disk from some update on; the run reaches its end, and then says what is missing."""
    run = records(slow.parent / "run")
    train = start("train", slow, "--run-dir", run.folder)
    train.until(lambda: run.updates() >= 60)
    (small_memory / "filler").write_bytes(bytes(os.statvfs(small_memory).f_bavail * 4096))
    folder = run.folder / "checkpoints"
    folder.rename(slow.parent / "saved")
    folder.symlink_to(small_memory)
    said = sentence(train)
    assert "checkpoint: expected room for" in said
    assert run.updates() == 300
    assert len([event for event in run.events("checkpoint") if "expected room" in event["text"]]) > 1
    assert [path.name for path in small_memory.iterdir()] == ["filler"]


def test_too_little_shared_memory(slow: Path, small_memory: Path, yfps: Any) -> None:
    started = time.monotonic()
    memory = ["--set", f"server.shared_memory_dir={small_memory}", "--set", "task.arguments.hidden=4000"]
    said = sentence(yfps("train", slow, *memory))
    assert str(small_memory) in said
    assert "server.shared_memory=false" in said
    assert not list(small_memory.iterdir())
    assert time.monotonic() - started < 30
