"""The processes of a sweep: a death is said, tried once more, then told; an error of the user's ends the sweep."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from launch.lab.pool import Pool, Work
from psserver.errors import DataError

# Answers like a computing process: the name of the point's folder says what happens to it.
SCRIPT = """
import json, os, pathlib, signal, sys, time
for line in sys.stdin:
    folder = pathlib.Path(json.loads(line)["folder"])
    before = len(list(folder.glob("run-*")))
    (folder / f"run-{before}").touch()
    if folder.name == "killer" or (folder.name == "once" and not before):
        os.kill(os.getpid(), signal.SIGKILL)
    if folder.name == "leaver":
        sys.exit(3)
    if folder.name == "sleeper":
        time.sleep(60)
    wrong = {"error": "DataError", "text": "no data", "trace": ""}
    print(json.dumps(wrong if folder.name == "wrong" else {"done": str(folder)}), flush=True)
"""


def works(tmp_path: Path, *names: str) -> list[Work]:
    for name in names:
        (tmp_path / name).mkdir()
    return [Work(name, tmp_path / name, "simulate") for name in names]


def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "hand.py"
    script.write_text(SCRIPT)
    return [sys.executable, str(script)]


def test_every_point_is_computed_once(tmp_path: Path) -> None:
    with Pool(3, print, command(tmp_path)) as pool:
        done = list(pool.run(works(tmp_path, *"abcdefg")))
    assert sorted(work.name for work, _ in done) == list("abcdefg")
    assert {reason for _, reason in done} == {""}
    assert all([path.name for path in (tmp_path / name).iterdir()] == ["run-0"] for name in "abcdefg")


def test_a_killed_process_is_said_and_its_point_tried_once_more(tmp_path: Path) -> None:
    said: list[str] = []
    with Pool(2, said.append, command(tmp_path)) as pool:
        done = {work.name: reason for work, reason in pool.run(works(tmp_path, "a", "once", "killer", "leaver", "b"))}
    assert done["a"] == done["b"] == done["once"] == ""
    assert done["killer"] == "its process was killed by SIGKILL again"
    assert done["leaver"] == "its process ended with exit code 3 again"
    assert len(said) == 3
    assert "once: its process was killed by SIGKILL; trying once more" in said
    assert len(list((tmp_path / "killer").iterdir())) == 2


def test_what_is_wrong_with_a_task_ends_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data"), Pool(2, print, command(tmp_path)) as pool:
        list(pool.run(works(tmp_path, "sleeper", "wrong")))


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    def sweep() -> None:
        with Pool(2, print, command(tmp_path)) as pool:
            for _ in pool.run(works(tmp_path, "sleeper", "a")):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep()
