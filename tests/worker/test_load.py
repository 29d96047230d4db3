"""From the words of an experiment to a task: what is found, and what is said where nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserver.errors import ConfigurationError, TaskError
from worker.load import load_task, user_traceback
from worker.task import Task

GOOD = """
from torch import nn
from worker.task import Task

def tiny(width, data_dir=None, *, scale=1.0):
    assert data_dir is None or data_dir.name == "data"
    return Task(model=lambda: nn.Linear(width, 1), loss=lambda m, b: m(b).mean() * scale, batches=iter)

def number():
    return 7

def broken(width=2):
    return helper(width)

def helper(width):
    raise KeyError(f"no width {width}")

value = 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "my_task.py"
    file.write_text(GOOD)
    return file


def test_a_function_in_a_file_becomes_a_task(path: Path) -> None:
    task = load_task(f"{path}:tiny", {"width": 3}, None)
    assert isinstance(task, Task)
    assert task.model().weight.shape == (1, 3)


def test_a_module_is_found_in_the_current_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path.parent / "yfps_load_test_module.py").write_text(GOOD)
    monkeypatch.chdir(path.parent)
    assert isinstance(load_task("yfps_load_test_module:tiny", {"width": 3}, None), Task)


def test_a_file_may_import_its_neighbours(path: Path) -> None:
    (path.parent / "yfps_load_test_neighbour.py").write_text(GOOD)
    path.write_text("from yfps_load_test_neighbour import tiny")
    assert isinstance(load_task(f"{path}:tiny", {"width": 1}, None), Task)


def test_the_data_folder_is_handed_on_unless_given(path: Path) -> None:
    load_task(f"{path}:tiny", {"width": 1}, Path("/some/data"))
    with pytest.raises(TaskError):
        load_task(f"{path}:tiny", {"width": 1, "data_dir": Path("/other")}, Path("/some/data"))


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        ("my_task.py", {}, "expected 'package.module:function'"),
        ("{folder}/my_tsk.py:tiny", {}, "did you mean 'my_task.py'?"),
        ("worker.zoo.cifr:resnet", {}, "did you mean 'cifar'?"),
        ("wrker.zoo:resnet", {}, "did you mean 'worker'?"),
        ("worker.zoo.cifar.more:resnet", {}, "no module 'worker.zoo.cifar.more'"),
        ("my task:tiny", {}, "expected a module"),
        ("{folder}/my_task.py:tny", {}, "did you mean 'tiny'?"),
        ("{folder}/my_task.py:value", {}, "is no function"),
        ("{folder}/my_task.py:tiny", {}, "needs a value for width; its parameters are width, data_dir, scale"),
        ("{folder}/my_task.py:tiny", {"widht": 3}, "no parameter 'widht' (did you mean 'width'?)"),
        ("{folder}/my_task.py:number", {"a": 3}, "it takes no arguments"),
        ("{folder}/my_task.py:number", {}, "returned a value of type int, expected a worker.Task"),
    ],
)
def test_what_does_not_fit_is_named(path: Path, function: str, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_task(function.format(folder=path.parent), arguments, None)
    assert said in str(caught.value)


def test_an_error_of_the_users_function_keeps_its_traceback(path: Path) -> None:
    with pytest.raises(TaskError, match="broken raised KeyError: 'no width 2'") as caught:
        load_task(f"{path}:broken", {}, None)
    lines = user_traceback(caught.value).splitlines()
    assert lines[0].startswith("Traceback")
    assert f'File "{path}"' in lines[1]
    assert "in broken" in lines[1]
    assert lines[-1] == "KeyError: 'no width 2'"


def test_an_error_at_import_is_the_users(path: Path) -> None:
    path.write_text("import a_package_nobody_has")
    with pytest.raises(TaskError, match="ModuleNotFoundError") as caught:
        load_task(f"{path}:tiny", {}, None)
    assert user_traceback(caught.value).splitlines()[1].strip().startswith(f'File "{path}", line 1')


def test_a_syntax_error_shows_its_line_only(path: Path) -> None:
    path.write_text("def tiny(:\n    pass\n")
    with pytest.raises(TaskError, match="SyntaxError") as caught:
        load_task(f"{path}:tiny", {}, None)
    shown = user_traceback(caught.value)
    assert "def tiny(:" in shown
    assert "importlib" not in shown


def test_our_own_errors_pass_unchanged() -> None:
    with pytest.raises(ConfigurationError, match="depth"):
        load_task("worker.zoo.cifar:resnet", {"depth": 21}, None)
