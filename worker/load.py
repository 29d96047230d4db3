"""From the words of an experiment, `package.module:function` or `file.py:function`, to a `Task`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from psserver.errors import ConfigurationError
from worker.task import Task
from worker.usercode import UserCode, user_traceback

__all__ = ["load_task", "user_traceback"]


def load_task(function: str, arguments: Mapping[str, Any], data_dir: Path | None) -> Task:
    """Call `function` with `arguments` as keywords and return the task it builds.

    function:  "package.module:function" (modules of the current folder count), or "path/to/file.py:function".
    data_dir:  handed on as the keyword `data_dir` if the function has such a parameter and none was given.

    Raises `ConfigurationError` if there is no such function, its arguments do not fit or it returns
    something else, and `TaskError` (the cause is the user's exception) if it raises.
    """
    place, colon, name = function.rpartition(":")
    if not (colon and place and name):
        raise ConfigurationError(
            f"[task] function: expected 'package.module:function' or 'path/to/file.py:function', got {function!r}"
        )
    module = _module_of_file(Path(place)) if place.endswith(".py") else _module_of_name(place)
    builder = _function(module, place, name)
    keywords = _fitting(builder, function, arguments, data_dir)
    with UserCode(function):
        task = builder(**keywords)
    if not isinstance(task, Task):
        raise ConfigurationError(
            f"[task] function: {function} returned {_kind(task)}, expected a worker.Task; "
            "end the function with `return Task(model=..., loss=..., batches=...)`"
        )
    return task


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        folder = path.parent
        found = [p.name for p in folder.glob("*.py")] if folder.is_dir() else []
        raise ConfigurationError(f"[task] function: there is no file {path} (in {Path.cwd()}){_near(path.name, found)}")
    path = path.resolve()
    _also_import_from(path.parent)
    name = f"user_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"[task] function: {path} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look their module up by name while it is still being run.
    sys.modules[name] = module
    with UserCode(str(path)):
        spec.loader.exec_module(module)
    return module


def _module_of_name(place: str) -> ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise ConfigurationError(
            f"[task] function: expected a module such as 'package.module' or a file ending in .py, got {place!r}"
        )
    _also_import_from(Path.cwd())
    with UserCode(f"import {place}"):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if place != missing and not place.startswith(missing + "."):
                raise  # the module exists; something it imports does not
    parent, _, last = missing.rpartition(".")
    paths = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    near = _near(last, [m.name for m in pkgutil.iter_modules(paths)] if paths or not parent else [])
    raise ConfigurationError(
        f"[task] function: there is no module {missing!r}{near}; looked in {Path.cwd()} and among the "
        "installed packages (a file is named by its path, 'path/to/file.py:function')"
    )


def _also_import_from(folder: Path) -> None:
    # At the end, so that a user's `worker.py` or `random.py` hides nothing that others import.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _function(module: ModuleType, place: str, name: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    own = [
        key
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    what = "is no function" if hasattr(module, name) else "does not exist"
    has = f"; its functions are {', '.join(sorted(own))}" if own else "; it defines no function"
    raise ConfigurationError(f"[task] function: {name!r} of {place} {what}{_near(name, own)}{has}")


def _fitting(
    builder: Callable[..., Any], function: str, arguments: Mapping[str, Any], data_dir: Path | None
) -> dict[str, Any]:
    parameters = inspect.signature(builder).parameters
    keywords = dict(arguments)
    if "data_dir" in parameters:
        keywords.setdefault("data_dir", data_dir)
    catches_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = f"its parameters are {', '.join(names)}" if names else "it takes no arguments"
    for name in keywords:
        if name not in names and not catches_all:
            raise ConfigurationError(
                f"[task.arguments]: {function} has no parameter {name!r}{_near(name, names)}; {known}"
            )
    missing = [n for n in names if parameters[n].default is inspect.Parameter.empty and n not in keywords]
    if missing:
        raise ConfigurationError(f"[task.arguments]: {function} needs a value for {', '.join(missing)}; {known}")
    return keywords


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
