"""Texts: the published ones, wherever they lie, their vocabularies, and the places each worker reads."""

from __future__ import annotations

import io
import lzma
import shutil
import tarfile
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from psserver.errors import DataError
from worker.task import Shard
from worker.zoo import text_data
from worker.zoo.text import encode, numbered, passages
from worker.zoo.text_data import penn_treebank, tinyshakespeare

NAMES = ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")


def test_tinyshakespeare_comes_with_the_package() -> None:
    text = tinyshakespeare()
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.")
    assert (len(text), len(set(text))) == (1_115_394, 65)


def test_a_damaged_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.xz"
    other.write_bytes(lzma.compress(b"To be, or not to be"))
    monkeypatch.setattr(text_data, "_SHAKESPEARE", other)
    with pytest.raises(DataError, match=r"expected a text of sha256 86c4.*install yellowfin-ps anew"):
        tinyshakespeare()
    other.write_bytes(b"no xz")
    with pytest.raises(DataError, match="cannot be read"):
        tinyshakespeare()


def test_the_penn_treebank_has_the_published_size(ptb_data: Path) -> None:
    words = [penn_treebank(part, ptb_data) for part in ("train", "valid", "test")]  # type: ignore[arg-type]
    assert [len(part) for part in words] == [929_589, 73_760, 82_430]
    assert len(set(words[0])) == 10_000
    assert {word for part in words[1:] for word in part} <= set(words[0])
    assert Counter(words[0])["<eos>"] == 42_068


@pytest.mark.parametrize("place", ["ptb/{}", "{}", "simple-examples/data/{}"])
def test_its_files_are_found_unpacked(ptb_data: Path, tmp_path: Path, place: str) -> None:
    path = tmp_path / place.format("ptb.valid.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.decompress((ptb_data / "ptb" / "ptb.valid.txt.xz").read_bytes()))
    assert penn_treebank("valid", tmp_path) == penn_treebank("valid", ptb_data)


def test_they_are_found_in_their_archive(ptb_data: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "simple-examples.tgz", "w:gz") as archive:
        content = lzma.decompress((ptb_data / "ptb" / "ptb.test.txt.xz").read_bytes())
        member = tarfile.TarInfo("./simple-examples/data/ptb.test.txt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    assert penn_treebank("test", tmp_path) == penn_treebank("test", ptb_data)
    with pytest.raises(DataError, match=r"contains no simple-examples/data/ptb\.train\.txt"):
        penn_treebank("train", tmp_path)


def test_they_are_downloaded_once_and_damaged_ones_are_named(
    ptb_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, mine = tmp_path / "published", tmp_path / "mine"
    published.mkdir()
    content = lzma.decompress((ptb_data / "ptb" / "ptb.valid.txt.xz").read_bytes())
    (published / "ptb.valid.txt").write_bytes(content)
    monkeypatch.setattr(text_data, "_PTB_URL", published.as_uri() + "/")
    assert penn_treebank("valid", mine) == penn_treebank("valid", ptb_data)
    shutil.rmtree(published)
    assert penn_treebank("valid", mine) == penn_treebank("valid", ptb_data)
    (mine / "ptb" / "ptb.valid.txt").write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"ptb\.valid\.txt is damaged: expected md5 aa0affc06ff7c36e977d7cd49e3839bf"):
        penn_treebank("valid", mine)
    with pytest.raises(DataError) as caught:
        penn_treebank("train", mine)
    for part in (published.as_uri(), str(mine), "place ptb.train.txt", "simple-examples.tgz", "--data-dir"):
        assert part in str(caught.value)


def test_a_packed_file_that_cannot_be_unpacked_is_named(tmp_path: Path) -> None:
    (tmp_path / "ptb.test.txt.xz").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"ptb\.test\.txt\.xz cannot be read"):
        penn_treebank("test", tmp_path)
    (tmp_path / "ptb.test.txt.xz").unlink()
    (tmp_path / "simple-examples.tgz").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"simple-examples\.tgz cannot be read"):
        penn_treebank("test", tmp_path)


def test_a_vocabulary_is_ordered_by_frequency_then_by_the_alphabet() -> None:
    counts = Counter(["the", "cat", "saw", "the", "dog", "and", "the", "<unk>", "saw", "a", "cat"])
    assert list(numbered(counts)) == ["the", "cat", "saw", "<unk>", "a", "and", "dog"]
    assert list(numbered(counts, at_least=2)) == ["the", "cat", "saw", "<unk>"]
    assert list(numbered(counts, most=2)) == ["the", "<unk>"]
    assert numbered({"b": 1, "a": 1}) == {"a": 0, "b": 1, "<unk>": 2}
    assert encode(["cat", "mouse", "the"], numbered(counts, most=3)).tolist() == [1, 2, 0]


def read(shard: Shard, count: int, length: int = 1000) -> list[tuple[Tensor, Tensor]]:
    return list(islice(passages(shard, torch.arange(length, dtype=torch.int32), 4, 7), count))


def test_every_row_reads_on_where_it_stopped_and_predicts_the_next_token() -> None:
    pairs = read(Shard(2, 8, 0), 300)
    for row in range(4):
        inputs = torch.cat([inputs[row] for inputs, _ in pairs])
        assert torch.equal(inputs, (inputs[0] + torch.arange(2100)) % 1000)
    assert all(torch.equal(targets, (inputs + 1) % 1000) for inputs, targets in pairs)


def test_the_place_is_a_pure_function_of_seed_rank_and_position() -> None:
    for (inputs, targets), (again, after) in zip(
        read(Shard(2, 8, 0), 30)[20:], read(Shard(2, 8, 0, 20), 10), strict=True
    ):
        assert torch.equal(inputs, again)
        assert torch.equal(targets, after)
    starts = {int(read(Shard(rank, 8, seed), 1, 100_000)[0][0][0, 0]) for rank in range(8) for seed in (0, 1)}
    assert len(starts) == 16


def test_every_worker_reads_all_of_the_text() -> None:
    for rank in range(3):
        seen = torch.cat([inputs.flatten() for inputs, _ in read(Shard(rank, 3, 0), 36)])
        assert len(set(seen.tolist())) == 1000


def test_a_text_too_short_to_predict_anything_is_refused() -> None:
    with pytest.raises(DataError, match="a text of 1 tokens is too short"):
        read(Shard(0, 1, 0), 1, length=1)
