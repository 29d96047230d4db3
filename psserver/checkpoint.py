"""Checkpoints: a nested state in one safetensors file, written whole or not at all. Never pickle."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from psserver.errors import CheckpointError
from psserver.options import CheckpointOptions

FORMAT = 1
_KEY = "yellowfin-ps"
_PATTERN = "update-*.safetensors"
_TENSOR = "tensor:"
_TEXT = "text:"  # before text that would be taken for one of the two


class Checkpoints:
    """Where a run's checkpoints go, and when the next one is due. Checks at once that there is room for two."""

    def __init__(self, directory: Path, options: CheckpointOptions, state_bytes: int) -> None:
        self.directory = directory
        self._options = options
        self._last = -1
        reserve(directory, 2 * state_bytes)

    def due(self, update: int, last: int) -> bool:
        """Every so many updates, and at the last one."""
        every = self._options.every
        return update != self._last and (update == last or (every > 0 and update > 0 and update % every == 0))

    def save(self, update: int, state: dict[str, Any]) -> Path:
        """Write a checkpoint; see `save_checkpoint`."""
        self._last = update  # also when it fails: the next attempt is at the next due update
        return save_checkpoint(self.directory, update, state, self._options.keep)


def save_checkpoint(directory: Path, update: int, state: dict[str, Any], keep: int) -> Path:
    """Write `state` (leaves: tensors and what JSON holds; floats keep every bit) and drop all but the newest `keep`.

    Raises CheckpointError when it cannot be written; what was there before is untouched.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _split(state, "", tensors)
    metadata = {_KEY: json.dumps({"format": FORMAT, "state": skeleton})}  # one key: their order is not kept
    path = directory / f"update-{update:08d}.safetensors"
    temporary = path.with_suffix(".part")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(directory)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _no_room(path, sum(t.numel() * t.element_size() for t in tensors.values()), error) from error
    for old in sorted(directory.glob(_PATTERN))[:-keep]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state as it was saved. Raises CheckpointError for a file that is none of ours or is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            if header.get("format") != FORMAT:
                raise CheckpointError(f"{path}: expected checkpoint format {FORMAT}, got {header.get('format')}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a checkpoint of this project, got: {error}") from error
    state: dict[str, Any] = _join(header["state"], tensors)
    return state


def latest_checkpoint(directory: Path) -> Path | None:
    """The checkpoint of the highest update, None if there is none."""
    return max(directory.glob(_PATTERN), default=None)


def reserve(directory: Path, size: int) -> None:
    """Check that a checkpoint of `size` bytes can be written, by taking the room and giving it back.

    Raises CheckpointError.
    """
    probe = directory / "room.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with probe.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
    except OSError as error:
        raise _no_room(directory, size, error) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Replace tensors by references into `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous()
        return _TENSOR + name
    if isinstance(value, str) and value.startswith((_TENSOR, _TEXT)):
        return _TEXT + value
    if isinstance(value, dict):
        return {key: _split(item, f"{name}.{key}" if name else str(key), tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_split(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Put the tensors back."""
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value.removeprefix(_TENSOR)]
    if isinstance(value, str) and value.startswith(_TEXT):
        return value.removeprefix(_TEXT)
    if isinstance(value, dict):
        return {key: _join(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value


def _no_room(path: Path, size: int, error: Exception) -> CheckpointError:
    got = error.strerror if isinstance(error, OSError) else str(error)
    return CheckpointError(
        f"checkpoint: expected room for {size / 1e6:.1f} MB at {path}, got {got}; "
        "free some space or choose another --run-dir"
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
