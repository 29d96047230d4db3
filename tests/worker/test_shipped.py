"""The shipped experiments' tasks: each is built as its file says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from worker.load import load_task

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"
TASKS = {path.stem: tomllib.loads(path.read_text())["task"] for path in sorted(CONFIGS.glob("*.toml"))}
READY = {name: task for name, task in TASKS.items() if task["function"].startswith("worker.zoo.")}


@pytest.mark.parametrize("name", READY)
def test_its_function_takes_its_arguments_and_needs_no_data_yet(name: str, tmp_path: Path) -> None:
    task: dict[str, Any] = READY[name]
    built = load_task(task["function"], task.get("arguments", {}), tmp_path)
    assert (built.state is not None) == ("lstm" in name)
    assert not list(tmp_path.iterdir())
