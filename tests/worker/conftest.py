"""Real texts for the language tasks, and ready-made tasks of every kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from worker.task import Task
from worker.zoo import digits
from worker.zoo.language import character_lstm, character_transformer

TEXTS = Path(__file__).resolve().parent.parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def ptb_data() -> Path:
    """A data folder with the Penn Treebank's words."""
    if not (TEXTS / "ptb" / "ptb.train.txt.xz").is_file():
        pytest.skip(f"no Penn Treebank words in {TEXTS}")
    return TEXTS


@pytest.fixture(scope="session")
def wsj_data() -> Path:
    """A data folder with the public sample of the Wall Street Journal's trees."""
    if not (TEXTS / "wsj-sample" / "treebank.zip").is_file():
        pytest.skip(f"no sample of the Wall Street Journal treebank in {TEXTS}")
    return TEXTS


@pytest.fixture(
    params=[
        character_transformer(hidden=16, heads=2, sequence=8, batch=2, dropout=0.1),
        character_lstm(hidden=8, layers=2, sequence=6, batch=2),
        digits.cnn(width=4),
        replace(digits.mlp(), accumulate=2),
    ],
    ids=["attention", "recurrent", "convolution", "accumulated"],
)
def small_task(request: pytest.FixtureRequest) -> Task:
    """A small ready-made task."""
    task: Task = request.param
    return task
