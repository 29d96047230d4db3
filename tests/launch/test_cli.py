"""The command line: what each mistake ends with, and what the commands hand on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import launch.local
import launch.process
from launch.cli import commands, run
from launch.shipped import shipped_configs
from psserver.errors import ServerLostError, TaskError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What `yfps train` handed on, instead of training; the current folder is a temporary one."""
    given: dict[str, Any] = {}

    def run_train(experiment: object, run_dir: Path, **options: object) -> None:
        given.update(options, experiment=experiment, run_dir=run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "metrics.jsonl").touch()

    monkeypatch.setattr(launch.local, "run_train", run_train)
    monkeypatch.chdir(tmp_path)
    return given


def ends_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def run_worker(*_: object) -> int:
        raise error

    monkeypatch.setattr(launch.process, "run_worker", run_worker)
    return run(["worker", "quadratic", "--connect", "tcp://127.0.0.1:5555"])


def test_every_command_has_help(capsys: Capture) -> None:
    for name in commands.commands:
        assert name == "bench" or run([name, "--help"]) == 0
    assert "YellowFin PS" in capsys.readouterr().out or run(["--help"]) == 0


def test_help_is_light() -> None:
    code = (
        "import sys, launch.cli; launch.cli.run(['--help']); "
        "heavy = {'torch', 'zmq', 'matplotlib', 'pydantic'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_options_are_short_for_keys_and_set_wins_over_them(trained: dict[str, Any]) -> None:
    options = ["--workers", "3", "--updates", "7", "--device", "cpu", "--data-dir", "data", "--run-dir", "here"]
    assert run(["train", "quadratic", *options, "--set", "evaluate.device=cuda"]) == 0
    experiment = trained["experiment"]
    assert (experiment.train.workers, experiment.train.updates, trained["workers"]) == (3, 7, 3)
    assert (experiment.train.device, experiment.evaluate.device) == ("cpu", "cuda")
    assert experiment.data.dir == str(Path("data").absolute())
    assert trained["run_dir"] == Path("here")


def test_a_run_ends_with_its_report(trained: dict[str, Any], capsys: Capture) -> None:
    assert run(["train", "quadratic", "--run-dir", "here"]) == 0
    assert "Report: here/report.html" in capsys.readouterr().out
    assert Path("here/report.html").is_file()


def test_a_runs_folder_can_be_resumed_by_name(trained: dict[str, Any]) -> None:
    run(["train", "quadratic", "--run-dir", "here"])
    trained["experiment"].write(Path("here/experiment.toml"))
    assert run(["train", "quadratic", "--run-dir", "here"]) == 2
    assert run(["train", "here", "--resume"]) == 2
    Path("here/checkpoints").mkdir()
    Path("here/checkpoints/update-00000010.safetensors").touch()
    assert run(["train", "here", "--resume"]) == 0
    assert (trained["resume"], trained["run_dir"], trained["experiment"].name) == (True, Path("here"), "quadratic")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "no-such-experiment"],
        ["train", "quadratic", "--set", "train.updats=3"],
        ["train", "quadratic", "--workers", "many"],
        ["train", "quadratic", "--bind", "tcp://0.0.0.0:5555"],
        ["server", "quadratic"],
        ["server", "quadratic", "--bind", "tcp://trainer:5555"],
        ["worker", "quadratic", "--connect", "trainer:5555"],
        ["report", "no-such-folder"],
        ["tain", "quadratic"],
    ],
)
def test_what_the_user_can_mend_ends_with_2_and_a_sentence(
    arguments: list[str], trained: dict[str, Any], capsys: Capture
) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.strip()
    assert "Traceback" not in shown.err
    assert not trained


def test_an_open_port_needs_insecure_and_says_what_that_means(trained: dict[str, Any], capsys: Capture) -> None:
    run(["train", "quadratic", "--bind", "tcp://0.0.0.0:5555"])
    assert "keys are not available yet" in capsys.readouterr().err
    assert run(["train", "quadratic", "--bind", "tcp://0.0.0.0:5555", "--insecure"]) == 0
    assert trained["bind"] == "tcp://0.0.0.0:5555"


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert ends_with(KeyboardInterrupt(), monkeypatch) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_failure_ends_with_1_and_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert ends_with(ServerLostError("no answer for 60 s"), monkeypatch) == 1
    assert capsys.readouterr().err == "yfps: no answer for 60 s\n"


def test_the_users_own_traceback_comes_before_the_sentence(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    error = TaskError("the task raised")
    error.__cause__ = ZeroDivisionError("in my loss")
    assert ends_with(error, monkeypatch) == 2
    shown = capsys.readouterr().err
    assert shown.index("ZeroDivisionError: in my loss") < shown.index("yfps: the task raised")


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttributeError, match="a bug"):
        ends_with(AttributeError("a bug"), monkeypatch)


def test_configs_lists_every_shipped_one(capsys: Capture) -> None:
    assert run(["configs"]) == 0
    assert set(shipped_configs()) <= set(capsys.readouterr().out.split())


def test_version_names_what_it_stands_on(capsys: Capture) -> None:
    assert run(["version"]) == 0
    assert "torch" in capsys.readouterr().out
