"""One float32 vector in a named shared-memory segment: the server creates and removes it, local workers attach."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import uuid
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from psserver.errors import SharedMemoryError

PREFIX = "yfps-"
_HEADER_BYTES = 64
_WRITING = -1
_NAME = re.compile(f"{PREFIX}[0-9a-f]{{32}}")


class Segment:
    """A vector of `size` float32 values with the version it holds in front of it.

    The creator owns the file: it keeps it locked while it lives, so that `sweep` can tell segments whose owner
    died from those in use, and `close()` removes it. A mapping stays valid after the file is gone.
    """

    def __init__(self, path: Path, descriptor: int, size: int, *, owner: bool, writable: bool = True) -> None:
        self.path = path
        self.size = size
        self._descriptor = descriptor if owner else -1
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map = mmap.mmap(descriptor, _HEADER_BYTES + 4 * size, access=access)
        self._version: NDArray[np.int64] = np.frombuffer(self._map, dtype=np.int64, count=1)
        self.values: NDArray[np.float32] = np.frombuffer(self._map, dtype=np.float32, count=size, offset=_HEADER_BYTES)

    @classmethod
    def create(cls, directory: Path, size: int) -> Segment:
        """Reserve every byte first, so that a shortage is an error here and never a crash at first touch."""
        need = _HEADER_BYTES + 4 * size
        try:
            if need > room(directory):
                raise OSError(errno.ENOSPC, "No space left on device")
            path, descriptor = _new_file(directory)
        except OSError as error:
            raise _shortage(directory, need, error) from error
        try:
            os.posix_fallocate(descriptor, 0, need)
            return cls(path, descriptor, size, owner=True)
        except OSError as error:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise _shortage(directory, need, error) from error

    @classmethod
    def attach(cls, path: Path, size: int, *, writable: bool) -> Segment:
        """Map a segment that the server made; SharedMemoryError when this process cannot see it."""
        mode = os.O_RDWR if writable else os.O_RDONLY
        try:
            descriptor = os.open(path, mode | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise SharedMemoryError(f"cannot attach shared memory {path}: {error.strerror}") from error
        try:
            actual = os.fstat(descriptor).st_size
            if actual != _HEADER_BYTES + 4 * size:
                raise SharedMemoryError(
                    f"shared memory {path}: expected {_HEADER_BYTES + 4 * size} bytes, found {actual}"
                )
            return cls(path, descriptor, size, owner=False, writable=writable)
        except OSError as error:
            raise SharedMemoryError(f"cannot map shared memory {path}: {error.strerror}") from error
        finally:
            os.close(descriptor)  # the mapping has its own

    @property
    def version(self) -> int:
        """The version the vector holds; -1 while it is being written."""
        return int(self._version[0])

    @version.setter
    def version(self, version: int) -> None:
        self._version[0] = version

    def writing(self) -> None:
        """Mark the vector as torn until the next version is set."""
        self._version[0] = _WRITING

    def close(self) -> None:
        """Remove the file, if this is its owner; the memory goes with the last array that views it."""
        if self._descriptor < 0:
            return
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1


def sweep(directory: Path) -> list[str]:
    """Remove segments whose owner died without removing them; returns their names."""
    removed = []
    for path in directory.glob(f"{PREFIX}*"):
        if not _NAME.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed.append(path.name)
            finally:
                os.close(descriptor)
    return removed


def _new_file(directory: Path) -> tuple[Path, int]:
    """An empty file that this process holds locked; made anew when a `sweep` came between making and locking."""
    while True:
        path = directory / f"{PREFIX}{uuid.uuid4().hex}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def room(directory: Path) -> int:
    """Bytes that may be reserved in `directory`.

    A memory file system may be larger than the memory behind it, and taking the last of that stalls the whole
    machine, so a twentieth of all memory stays free.
    """
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    memory = psutil.virtual_memory()
    spare: int = memory.available - memory.total // 20
    return max(0, min(free, spare))


def require_room(directory: Path, size: int, count: int) -> None:
    """Raise SharedMemoryError unless `count` vectors of `size` values fit, before the first of them is made."""
    need = count * (_HEADER_BYTES + 4 * size)
    try:
        if need > room(directory):
            raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise _shortage(directory, need, error, count) from error


def _shortage(directory: Path, need: int, error: OSError, count: int = 1) -> SharedMemoryError:
    free = 0
    with contextlib.suppress(OSError):
        free = room(directory)
    return SharedMemoryError(
        f"shared memory: expected {need / 1e6:.1f} MB for {count} more vectors in {directory}, "
        f"got {error.strerror} ({free / 1e6:.1f} MB free); enlarge {directory}, use fewer workers or slots, "
        "or send payloads as frames with --set server.shared_memory=false"
    )
