"""Real texts for the language tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

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
