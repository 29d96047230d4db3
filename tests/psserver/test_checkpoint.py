"""Checkpoints: whole or not at all, bit-exact, and never more of them than asked for."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psserver import CheckpointOptions, Checkpoints, RuleOptions, latest_checkpoint, load_checkpoint
from psserver.checkpoint import _sync, save_checkpoint
from psserver.errors import CheckpointError
from tests.psserver.conftest import Rows, ServerFactory, Talker

LEAVES = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8)
STATES = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=5),
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner)),
    max_size=4,
)


@given(STATES)
def test_what_json_holds_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, state: dict) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    path = save_checkpoint(folder, 1, {**state, "vector": torch.arange(3.0)}, keep=1)
    back = load_checkpoint(path)
    assert torch.equal(back.pop("vector"), torch.arange(3.0))
    assert back == state


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for update in (5, 10, 100_000_000):
        save_checkpoint(tmp_path, update, {"version": update}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "update-00000010.safetensors",
        "update-100000000.safetensors",
    ]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert load_checkpoint(newest) == {"version": 100_000_000}


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def sync(path: Path) -> None:
        _sync(path)  # as it was before tests/conftest.py took it away
        synced.append((path.name, sorted(p.name for p in tmp_path.iterdir())))

    monkeypatch.setattr("psserver.checkpoint._sync", sync)
    path = save_checkpoint(tmp_path, 1, {"version": 1}, keep=1)
    assert synced == [("update-00000001.part", ["update-00000001.part"]), (tmp_path.name, [path.name])]


def test_there_is_no_latest_in_an_empty_folder(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"junk", b"\x08\0\0\0\0\0\0\0{}      ", b"\xff" * 100])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "update-00000001.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="update-00000001"):
        load_checkpoint(path)


@pytest.fixture
def small_files() -> object:
    """No file may become larger than 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield None
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_checkpoint_that_does_not_fit_leaves_the_last_one_untouched(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path, 1, {"x": torch.zeros(10)}, keep=1)
    with pytest.raises(CheckpointError, match=r"expected room for 4.0 MB at .*; free some space"):
        save_checkpoint(tmp_path, 2, {"x": torch.zeros(1_000_000)}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == [first.name]
    assert torch.equal(load_checkpoint(first)["x"], torch.zeros(10))


@pytest.mark.usefixtures("small_files")
def test_missing_room_is_found_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected room for 2.0 MB"):
        Checkpoints(tmp_path, CheckpointOptions(), 1_000_000)
    assert list(tmp_path.iterdir()) == []


def test_when_a_checkpoint_is_due(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointOptions(every=10), 100)
    assert [u for u in range(26) if checkpoints.due(u, 25)] == [10, 20, 25]
    never = Checkpoints(tmp_path, CheckpointOptions(every=0), 100)
    assert [u for u in range(26) if never.due(u, 25)] == [25]


@pytest.mark.parametrize("rule", get_args(get_type_hints(RuleOptions)["name"]))
def test_a_resumed_server_goes_on_bit_for_bit(
    make_server: ServerFactory, rows: Rows, tmp_path: Path, rule: Any
) -> None:
    options = RuleOptions(name=rule, weight_decay=0.01)
    random = np.random.default_rng(3)
    gradients = [random.normal(size=6).astype(np.float32) for _ in range(40)]
    server = make_server(rule=options, workers=1)
    worker = Talker(server, "a")
    worker.pull()
    for gradient in gradients[:25]:
        worker.push(gradient, buffers=np.full(2, 4.0, np.float32))
    path = save_checkpoint(tmp_path, server.version, server.state_dict(), keep=1)
    for gradient in gradients[25:]:
        worker.push(gradient)
    later = make_server(rule=options, workers=1, resume=load_checkpoint(path))
    assert later.version == 25
    again = Talker(later, "b", rank=0)
    assert again.step == 25, "no step is pushed twice over two lives"
    again.pull()
    for gradient in gradients[25:]:
        again.push(gradient)
    assert again.given is not None
    assert worker.given is not None
    assert again.given.values.tobytes() == worker.given.values.tobytes()
    assert vars(rows.rows[-1]) == vars(rows.rows[39])
    np.testing.assert_array_equal(later.averaged_buffers().numpy(), [4.0, 4.0])
    assert later.journal.progress.summary() == server.journal.progress.summary()


def test_a_gradient_of_a_lost_life_counts_only_up_to_where_the_server_resumed(make_server: ServerFactory) -> None:
    server = make_server(workers=1)
    worker = Talker(server, "a")
    worker.pull()
    for _ in range(5):
        worker.push()
    state = server.state_dict()
    later = make_server(workers=1, resume=state)
    back = Talker(later, "b", rank=0)
    back.pull()
    assert not isinstance(back.push(session="old", version=5), type(None))
    assert later.version == 6
    refused = back.push(session="old", version=6)
    assert "expected at most 5 of this life of the server, got 6" in str(refused)
    assert later.version == 6
