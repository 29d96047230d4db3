"""A run's folder: which one is taken, and what is read of an unfinished run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from launch.rundir import choose_run_dir, read_rows, read_summary
from psserver.errors import ConfigurationError

NOON = datetime(2030, 1, 2, 12, 0, 0)


def test_a_new_run_gets_a_dated_folder_and_a_second_one_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = choose_run_dir("digits", None, resume=False, now=NOON)
    assert first == Path("runs/digits-20300102-120000")
    first.mkdir(parents=True)
    assert choose_run_dir("digits", None, resume=False, now=NOON).name == "digits-20300102-120000-2"


def test_a_folder_that_holds_something_is_never_overwritten(tmp_path: Path) -> None:
    assert choose_run_dir("digits", tmp_path, resume=False) == tmp_path
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ConfigurationError, match="not empty; say --resume"):
        choose_run_dir("digits", tmp_path, resume=False)


def test_resuming_needs_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="say which run"):
        choose_run_dir("digits", None, resume=True)
    with pytest.raises(ConfigurationError, match="expected a checkpoint"):
        choose_run_dir("digits", tmp_path, resume=True)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "update-00000010.safetensors").touch()
    assert choose_run_dir("digits", tmp_path, resume=True) == tmp_path


def test_a_row_cut_short_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"update": 1}\n{"update": 2}\n{"upd')
    assert [row["update"] for row in read_rows(path)] == [1, 2]
    assert list(read_rows(tmp_path / "missing.jsonl")) == []


def test_a_damaged_row_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"update": 1}\n{"upd\n{"update": 3}\n')
    with pytest.raises(ConfigurationError, match="line 2"):
        list(read_rows(path))


def test_a_run_without_a_summary_has_an_empty_one(tmp_path: Path) -> None:
    assert read_summary(tmp_path / "summary.json") == {}
    (tmp_path / "summary.json").write_text('{"updates": 3')
    assert read_summary(tmp_path / "summary.json") == {}
