"""The doctor: a healthy machine, missing things, and whether an experiment fits."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from launch import doctor
from launch.doctor import Finding, examine, show
from launch.doctor_run import examine_experiment, examine_round_trip, vector_bytes
from launch.experiment import load_experiment


def test_a_round_trip_over_loopback_is_made() -> None:
    finding = examine_round_trip()
    assert finding.level == "ok"
    assert "µs to push" in finding.text


def test_a_healthy_machine_has_no_failure() -> None:
    findings = list(examine("quadratic"))
    assert {finding.level for finding in findings} <= {"ok", "warn"}
    assert {"cores", "memory", "round trip", "vectors"} <= {finding.subject for finding in findings}


def test_an_experiment_that_cannot_be_built_is_a_failure() -> None:
    assert [finding.level for finding in examine_experiment("no-such")] == ["fail"]
    (finding,) = examine_experiment("custom")
    assert "my_task.py" in finding.text


def test_vectors_are_counted_for_versions_and_gradients() -> None:
    experiment = load_experiment("quadratic", ["train.workers=16"])
    assert vector_bytes(experiment, 1000) == 4 * 1000 * (16 + 3 + 16)
    assert vector_bytes(experiment.with_settings("server.slots=64"), 1000) == 4 * 1000 * (64 + 16)


def test_vectors_that_do_not_fit_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    levels = {finding.subject: finding.level for finding in examine_experiment("quadratic")}
    assert levels["vectors"] == "fail"


def test_a_missing_package_is_a_failure_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_STANDS_ON", ("torch", "no-such-package"))
    finding = doctor._versions()
    assert (finding.level, finding.advice) == ("fail", "run: pip install no-such-package")


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_only_a_failure_ends_with_1(level: str, code: int) -> None:
    file = io.StringIO()
    finding = Finding(level, "disk", "[red]5 B free[/red]", "make room")  # type: ignore[arg-type]
    assert show(iter([finding]), Console(file=file)) == code
    assert "[red]5 B free[/red]" in file.getvalue()
    assert "make room" in file.getvalue()
