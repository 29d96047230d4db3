"""The slow twin for the tuner's tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def twin() -> ModuleType:
    """The module reference.py, which lies beside the tests and in no package."""
    spec = importlib.util.spec_from_file_location("tuner_reference", Path(__file__).with_name("reference.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
