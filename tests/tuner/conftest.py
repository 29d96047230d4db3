"""Modules that lie beside the tuner's tests and in no package: the slow twin, and the table of biases."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def beside(name: str) -> ModuleType:
    """The module `name`.py of this folder."""
    spec = importlib.util.spec_from_file_location(f"tuner_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def twin() -> ModuleType:
    """The module reference.py, which computes everything again, slowly."""
    return beside("reference")


@pytest.fixture(scope="session")
def table() -> ModuleType:
    """The module bias_table.py, which measures bias and spread of the estimators."""
    return beside("bias_table")
