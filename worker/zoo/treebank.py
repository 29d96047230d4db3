"""A treebank of `.mrg` files, in a folder or a zip archive, as a corpus of linearised trees."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from psserver.errors import ConfigurationError, DataError
from worker.data import resolve_data_dir
from worker.zoo.text import END, Corpus, count_words, encode, numbered
from worker.zoo.trees import linearised

_NAMES = ("wsj", "treebank", "wsj-sample", "treebank.zip", "wsj-sample/treebank.zip")
"""Where a treebank may lie in the data folder, in the order looked for."""

_SECTION = re.compile(r"wsj_(\d\d)\d\d\.mrg$", re.IGNORECASE)
_TRAINED, _DEVELOPMENT = frozenset(range(2, 22)), 22
"""Sections of the Wall Street Journal that are trained and tuned on by custom."""

_EVERY = 10


def treebank_corpus(treebank: str | None, data_dir: Path | None, at_least: int) -> Corpus:
    """Return the trees as one sequence of tokens, "<eos>" after each tree.

    treebank: a folder with `.mrg` files, at any depth, or a zip archive of them; None looks in the data folder for
              wsj, treebank, wsj-sample and treebank.zip.
    at_least: words that occur less often in the training trees become "<unk>"; brackets do not.

    Held out is section 22 where sections 2 to 21 and 22 of the Wall Street Journal are there (then trained on is 2 to
    21), else every tenth file, in the order of their names. Raises `DataError` if there are no trees.
    """
    place = _find(treebank, data_dir)
    files = {
        name: [token for tree in linearised(text, f"{place}: {name}") for token in (*tree, END)]
        for name, text in _texts(place)
    }
    train_names, held_out_names = split(sorted(files))
    train = [token for name in train_names for token in files[name]]
    held_out = [token for name in held_out_names for token in files[name]]
    if len(train) < 2 or len(held_out) < 2:
        raise DataError(
            f"{place}: expected trees in two .mrg files or more, one of them to be held out, got {len(files)} files "
            f"with {len(train) + len(held_out)} tokens"
        )
    counts = count_words(train)
    structure = {token: max(n, at_least) for token, n in counts.items() if is_bracket(token) or token == END}
    vocabulary = numbered({**counts, **structure}, at_least=at_least)
    return Corpus(len(vocabulary), encode(train, vocabulary), encode(held_out, vocabulary))


def is_bracket(token: str) -> bool:
    """Whether it opens or closes a phrase; words have no brackets in them."""
    return token[0] == "(" or token[-1] == ")"


def split(names: list[str]) -> tuple[list[str], list[str]]:
    """Return which of the files, in order, are trained on and which are held out."""
    sections = {name: int(found[1]) for name in names if (found := _SECTION.search(name))}
    if {*_TRAINED, _DEVELOPMENT} <= set(sections.values()):
        train = [name for name in names if sections.get(name) in _TRAINED]
        return train, [name for name in names if sections.get(name) == _DEVELOPMENT]
    held_out = set(names[_EVERY - 1 :: _EVERY] or names[-1:])
    return [name for name in names if name not in held_out], [name for name in names if name in held_out]


def _find(treebank: str | None, data_dir: Path | None) -> Path:
    if treebank is not None:
        path = Path(treebank).expanduser()
        if not path.exists():
            raise ConfigurationError(f"treebank: there is no file or folder {path}")
        return path
    root = resolve_data_dir(data_dir)
    for name in _NAMES:
        path = root / name
        if path.is_file() or (path.is_dir() and next(path.rglob("*.mrg"), None) is not None):
            return path
    raise DataError(
        f"no treebank in {root}: expected .mrg files in one of {', '.join(_NAMES)}; name a folder or zip archive with "
        "--set task.arguments.treebank=PATH (NLTK's free sample of the Wall Street Journal, treebank.zip, will do)"
    )


def _texts(place: Path) -> Iterator[tuple[str, str]]:
    """Names and contents of the `.mrg` files."""
    try:
        if place.is_dir():
            for path in place.rglob("*.mrg"):
                yield path.relative_to(place).as_posix(), path.read_text("utf-8")
            return
        with zipfile.ZipFile(place) as archive:
            for name in archive.namelist():
                if name.endswith(".mrg"):
                    yield name, archive.read(name).decode()
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{place} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{place} holds an .mrg file that is not UTF-8 text: {error}") from None
