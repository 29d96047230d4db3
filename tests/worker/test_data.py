"""Data sets: found, extracted, verified, and said in a sentence where they cannot be had."""

from __future__ import annotations

import hashlib
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from psserver.errors import DataError
from worker.data import Archive, provide, resolve_data_dir
from worker.zoo.cifar_data import CIFAR10, CIFAR100

TEXT = {"one.bin": b"1" * 1000, "two.bin": b"2" * 3000}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with a packed archive, as its publisher holds it."""
    inside = tmp_path / "publisher" / "numbers"
    inside.mkdir(parents=True)
    for name, content in TEXT.items():
        (inside / name).write_bytes(content)
    with tarfile.open(tmp_path / "publisher" / "numbers.tar.gz", "w:gz") as packed:
        packed.add(inside, "numbers")
    return tmp_path / "publisher"


@pytest.fixture
def archive(published: Path) -> Archive:
    """The archive at an address where nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return Archive(
        name="Numbers",
        url=f"http://127.0.0.1:{port}/numbers.tar.gz",
        md5=md5((published / "numbers.tar.gz").read_bytes()),
        folder="numbers",
        files={name: md5(content) for name, content in TEXT.items()},
    )


class Quiet(SimpleHTTPRequestHandler):
    served = 0

    def do_GET(self) -> None:
        type(self).served += 1
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def online(published: Path, archive: Archive) -> Iterator[Archive]:
    Quiet.served = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=published)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield replace(archive, url=f"http://127.0.0.1:{server.server_port}/numbers.tar.gz")
        server.shutdown()
        thread.join()


def test_an_argument_beats_the_environment_and_that_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YFPS_DATA", "/from/environment")
    assert resolve_data_dir(Path("/given")) == Path("/given")
    assert resolve_data_dir(None) == Path("/from/environment")
    monkeypatch.delenv("YFPS_DATA")
    assert resolve_data_dir(None) == Path.home() / ".cache" / "yellowfin-ps"


@pytest.mark.parametrize("inside", ["", "numbers"])
def test_files_are_found_in_the_data_folder_or_its_own(published: Path, archive: Archive, inside: str) -> None:
    assert provide(archive, published / inside) == published / "numbers"


def test_an_archive_lying_there_is_extracted_once(published: Path, archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (published / "numbers.tar.gz").rename(tmp_path / "data" / "numbers.tar.gz")
    folder = provide(archive, tmp_path / "data")
    assert (folder / "two.bin").read_bytes() == TEXT["two.bin"]
    (tmp_path / "data" / "numbers.tar.gz").unlink()
    assert provide(archive, tmp_path / "data") == folder


def test_many_at_once_download_once(online: Archive, tmp_path: Path) -> None:
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(provide(online, tmp_path / "new"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [tmp_path / "new" / "numbers"] * 4
    assert Quiet.served == 1


def test_offline_the_sentence_names_address_folder_and_what_to_place(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        provide(archive, tmp_path)
    for part in (archive.url, str(tmp_path), "place numbers.tar.gz", "folder numbers", "--data-dir", "$YFPS_DATA"):
        assert part in str(caught.value)
    assert not list(tmp_path.glob("*.part"))


def test_an_archive_that_is_not_there_is_said_as_such(online: Archive, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="HTTP Error 404"):
        provide(replace(online, url=online.url.replace("numbers.tar", "letters.tar")), tmp_path)


def test_a_damaged_archive_is_named_with_its_md5(published: Path, archive: Archive) -> None:
    (published / "numbers").rename(published / "elsewhere")
    with (published / "numbers.tar.gz").open("r+b") as file:
        file.write(b"??")
    with pytest.raises(DataError, match=rf"numbers\.tar\.gz is damaged: expected md5 {archive.md5}, got"):
        provide(archive, published)


def test_a_damaged_file_is_named_with_its_md5_even_after_it_was_once_verified(
    published: Path, archive: Archive
) -> None:
    folder = provide(archive, published)
    path = folder / "two.bin"
    path.write_bytes(TEXT["two.bin"][:-1] + b"3")
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=rf"two\.bin is damaged: expected md5 {archive.files['two.bin']}, got"):
        provide(archive, published)


def test_files_once_verified_are_not_read_again(
    published: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(archive, published)
    read: list[str] = []
    monkeypatch.setattr("hashlib.file_digest", lambda *_: read.append("read"))
    assert provide(archive, published) == published / "numbers"
    assert not read


def test_an_incomplete_folder_is_said(published: Path, archive: Archive) -> None:
    (published / "numbers" / "one.bin").unlink()
    with pytest.raises(DataError, match=r"is incomplete, it lacks one\.bin"):
        provide(archive, published)


def test_nothing_is_extracted_outside_the_data_folder(archive: Archive, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / "evil").write_text("evil")
    with tarfile.open(root / "numbers.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "evil", "../../outside")
    wrong = replace(archive, md5=md5((root / "numbers.tar.gz").read_bytes()))
    with pytest.raises(DataError, match="cannot be extracted"):
        provide(wrong, root)
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.parametrize("data", [CIFAR10, CIFAR100], ids=["CIFAR-10", "CIFAR-100"])
def test_the_real_files_are_the_published_ones(cifar_data: Path, data: object) -> None:
    archive: Archive = data.archive  # type: ignore[attr-defined]
    folder = provide(archive, cifar_data)
    assert {name: md5((folder / name).read_bytes()) for name in archive.files} == dict(archive.files)
