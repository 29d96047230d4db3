"""The shape of the code: who imports whom, how long files and functions are, and what each package offers."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("psserver", "tuner", "worker", "launch")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
OURS = {
    "tuner": {"tuner"},
    "psserver": {"psserver", "tuner"},
    "worker": {"worker", "psserver.wire", "psserver.errors"},
    "launch": set(PACKAGES),
}
TUNER_MAY_USE = {"torch", "__future__", "abc", "bisect", "collections", "contextlib", "copy", "dataclasses", "enum"}
TUNER_MAY_USE |= {
    "functools",
    "importlib",
    "itertools",
    "math",
    "operator",
    "random",
    "statistics",
    "typing",
    "warnings",
}
NEEDS_NO_TORCH = (
    "psserver.errors",
    "psserver.options",
    "psserver.wire",
    "worker.client",
    "launch.experiment",
    "launch.cli",
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules (and, of `from x import y`, x.y as well) that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def belongs(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def users(package: str) -> set[str]:
    return {name(path) for path in SOURCES if any(belongs(module, {package}) for module in imports(path))}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or 0) - node.lineno + 1


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for module in imports(path):
            if belongs(module, set(PACKAGES)):
                assert belongs(module, OURS[package]), f"{name(path)} imports {module}"


def test_the_tuner_knows_torch_and_mathematics_only() -> None:
    for path in (ROOT / "tuner").rglob("*.py"):
        for module in imports(path):
            assert belongs(module, TUNER_MAY_USE | {"tuner"}), f"{name(path)} imports {module}"


def test_the_server_knows_no_module_and_no_data_set() -> None:
    for path in (ROOT / "psserver").rglob("*.py"):
        assert not any(belongs(module, {"torch.nn", "torch.utils"}) for module in imports(path)), name(path)


def test_sockets_messages_and_the_command_line_stay_in_their_files() -> None:
    assert users("zmq") == {"psserver/router.py", "worker/connection.py"}
    assert users("msgpack") == {"psserver/wire.py"}
    command_line = {"cli", "cli_lab", "cli_look", "cli_run", "bench"}
    assert users("click") <= {f"launch/{file}.py" for file in command_line}


def test_what_needs_no_torch_does_not_wait_for_it() -> None:
    code = f"import sys, {', '.join(NEEDS_NO_TORCH)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_nothing_is_ever_unpickled() -> None:
    for path in SOURCES:
        forbidden = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
        assert not any(belongs(module, forbidden) for module in imports(path)), name(path)
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        assert not calls & {"torch.load", "torch.save", "eval", "exec"}, name(path)


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name)
def test_a_file_is_short_and_its_first_line_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('"""')
    assert len(text.splitlines()[0].strip('" .')) > 10, "the first line says nothing"
    assert len(text.splitlines()) <= 300
    assert [(function, lines) for function, lines in functions(path) if lines > 60] == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_broad_is_caught_and_nothing_is_asserted(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    caught = {ast.unparse(node.type) if node.type else "" for node in nodes if isinstance(node, ast.ExceptHandler)}
    assert not caught & {"", "Exception"}
    assert not any(isinstance(node, ast.Assert) for node in nodes)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_constructor_takes_at_most_eight_arguments(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len(arguments) - 1 <= 8


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_of_a_package_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__), "the public list is not in order"
    assert all(hasattr(module, public) for public in module.__all__)


def test_the_public_surface_is_what_the_readme_promises() -> None:
    promised = {
        "launch": {"Experiment", "load_experiment", "simulate", "train"},
        "psserver": {"ParameterServer", "serve"},
        "tuner": {"YellowFin"},
        "worker": {"ParameterClient", "Task"},
    }
    for package, names in promised.items():
        assert names <= set(importlib.import_module(package).__all__)
