"""Where data sets lie, and how a published archive gets there: found, downloaded, extracted and verified."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from psserver.errors import DataError

_STAMP = ".yfps-verified"
_PATIENCE = 30.0
"""Seconds without a byte after which a download is given up."""


@dataclass(frozen=True)
class Archive:
    """A published .tar.gz with one folder of data files.

    name:   what people call it.
    url:    where it is published.
    md5:    the published checksum of the archive.
    folder: the folder inside.
    files:  the published checksum (MD5) of every file needed.
    """

    name: str
    url: str
    md5: str
    folder: str
    files: Mapping[str, str]

    @property
    def file_name(self) -> str:
        """Name of the archive itself."""
        return self.url.rpartition("/")[2]


def resolve_data_dir(given: Path | None) -> Path:
    """Return the folder of the data sets: `given` if there is one, else $YFPS_DATA, else ~/.cache/yellowfin-ps."""
    if given is not None:
        return Path(given).expanduser()
    named = os.environ.get("YFPS_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "yellowfin-ps"


def provide(archive: Archive, data_dir: Path | None) -> Path:
    """Return the folder with the verified files of `archive`.

    Looks in the data folder for the files themselves, for `archive.folder`, then for the archive,
    which is extracted once; and downloads that if it is not there. Safe to call from many processes
    at once. Raises `DataError` if the data cannot be had or are not the published ones.
    """
    root = resolve_data_dir(data_dir)
    with one_at_a_time(root):
        folder = _present(archive, root)
        if folder is None:
            _extract(archive, _obtain(archive, root), root)
            folder = root / archive.folder
        _verify(archive, folder)
    return folder


def _present(archive: Archive, root: Path) -> Path | None:
    for folder in (root, root / archive.folder):
        missing = [name for name in archive.files if not (folder / name).is_file()]
        if not missing:
            return folder
        if folder.name == archive.folder and len(missing) < len(archive.files):
            raise DataError(
                f"{archive.name}: {folder} is incomplete, it lacks {', '.join(missing)}; "
                f"delete it to have it made anew from {archive.file_name}, or add the files"
            )
    return None


def _verify(archive: Archive, folder: Path) -> None:
    states = {name: (folder / name).stat() for name in archive.files}
    stamp = "".join(f"{archive.files[n]} {s.st_size} {s.st_mtime_ns} {n}\n" for n, s in states.items())
    seal = folder / _STAMP
    if seal.is_file() and seal.read_text() == stamp:
        return
    for name, md5 in archive.files.items():
        got = _md5(folder / name)
        if got != md5:
            raise DataError(
                f"{archive.name}: {folder / name} is damaged: expected md5 {md5}, got {got}; "
                f"delete the folder to have it made anew from {archive.file_name}, or replace the file"
            )
    if os.access(folder, os.W_OK):
        seal.write_text(stamp)


def _obtain(archive: Archive, root: Path) -> Path:
    path = root / archive.file_name
    if not path.is_file():
        place = f"place {archive.file_name}, or the folder {archive.folder} it contains, in {root}"
        download(archive.name, archive.url, path, place)
    got = _md5(path)
    if got != archive.md5:
        raise DataError(
            f"{archive.name}: {path} is damaged: expected md5 {archive.md5}, got {got}; "
            "delete it to have it downloaded again"
        )
    return path


def download(name: str, url: str, path: Path, advice: str) -> None:
    """Fetch `url` to `path`, whole or not at all; raises `DataError`, with `advice` on what to do instead.

    name: what people call the data.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=_PATIENCE) as source, temporary.open("wb") as target:
            _copy(source, target, int(source.headers.get("Content-Length") or 0), name)
        temporary.replace(path)
    except (OSError, http.client.HTTPException) as error:
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):
            reason = str(error)
            error.close()  # it holds the connection
        raise DataError(
            f"{name} is not in {path.parent}, and {url} could not be downloaded ({reason}); "
            f"{advice}, or name the folder that has it with --data-dir or $YFPS_DATA"
        ) from error


def _copy(source: BinaryIO, target: BinaryIO, size: int, name: str) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console.print(f"downloading {name}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=size or None)
        read = 0
        while block := source.read(1 << 20):
            target.write(block)
            read += len(block)
            progress.update(task, completed=read)
    if size and read != size:
        raise OSError(f"the connection ended after {read} of {size} bytes")


def _extract(archive: Archive, path: Path, root: Path) -> None:
    with tempfile.TemporaryDirectory(dir=root, prefix=".extracting-") as temporary:
        try:
            with tarfile.open(path) as content:
                content.extractall(temporary, filter="data")
            (Path(temporary) / archive.folder).rename(root / archive.folder)
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"{archive.name}: {path} cannot be extracted in {root}: {error}") from error


@contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """Let one process at a time look after the data folder `root`, which is made if it is not there."""
    # Sixteen workers that start at once shall download and verify once. Where the folder cannot be
    # written there is nothing to download into, and verifying needs no lock.
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".yfps-lock").open("w")
    except OSError:
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
