"""The trajectory: recent versions of one flat vector, none of which ever changes while somebody reads it."""

from __future__ import annotations

import heapq
import itertools
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from psserver.errors import SharedMemoryError
from psserver.shared_memory import Segment, require_room

_log = logging.getLogger("psserver")


@dataclass(eq=False)
class VersionSlot:
    """Memory for one version. `holders` counts the members that may still be reading it."""

    values: NDArray[np.float32]
    segment: Segment | None
    version: int = -1
    holders: int = 0
    retired: bool = False
    tensor: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        """View the memory as a tensor."""
        self.tensor = torch.from_numpy(self.values)


class Trajectory:
    """Versions 0, 1, 2, … of a vector of N float32 values; the newest two are always there.

    Who reads a version holds it (`hold`, `release`); `next_slot` hands out only memory that nobody holds, adding
    a slot when there is none, so a reply, a checkpoint and the estimator share a version without a copy.
    Memory: 4 N bytes a slot; as many slots as versions are held at once, plus three, at least `slots`.
    """

    def __init__(self, initial: NDArray[np.float32], *, version: int, slots: int, directory: Path | None) -> None:
        self._size = initial.size
        self._directory = directory
        self._slots: set[VersionSlot] = set()
        self._free: list[tuple[int, int, VersionSlot]] = []  # a heap by version; what was held again since is skipped
        self._freed = itertools.count()
        if directory is not None:
            require_room(directory, self._size, max(slots, 3))
        try:
            reserved = [self._add_slot(directory) for _ in range(max(slots, 3))]
        except BaseException:
            self.close()
            raise
        first, *others = reserved
        first.values[:] = initial
        self._by_version: dict[int, VersionSlot] = {}
        self.current = self.previous = first
        self._publish(first, version)
        for slot in others:
            self._offer(slot)

    @property
    def version(self) -> int:
        """The newest version."""
        return self.current.version

    @property
    def slots(self) -> int:
        """Number of versions there is memory for."""
        return len(self._slots)

    def at(self, version: int) -> VersionSlot | None:
        """The slot of a version, None once its memory was used again."""
        return self._by_version.get(version)

    def values(self, version: int) -> NDArray[np.float32]:
        """A version that somebody holds."""
        return self._by_version[version].values

    def hold(self, version: int) -> None:
        """Keep a version that is still there from being overwritten until it is released."""
        self._by_version[version].holders += 1

    def release(self, version: int, *, unread: bool = False) -> None:
        """Give a hold back. `unread`: a reader may still be at it (a lost peer), so the memory is never reused."""
        slot = self._by_version[version]
        slot.holders -= 1
        slot.retired = slot.retired or unread
        self._offer(slot)

    def next_slot(self) -> VersionSlot:
        """Memory for version + 1, to be committed: the oldest version that nobody holds, never the newest two."""
        slot = self._oldest_free() or self._one_more()
        self._by_version.pop(slot.version, None)
        slot.version = -1
        if slot.segment is not None:
            slot.segment.writing()
        return slot

    def commit(self, slot: VersionSlot) -> None:
        """Make what was written into `slot` the newest version."""
        before, self.previous = self.previous, self.current
        self._publish(slot, self.previous.version + 1)
        self._offer(before)

    def restore_previous(self, values: NDArray[np.float32]) -> None:
        """Put x_{t−1} beside a restored x_t, so that the first update goes on with its momentum."""
        slot = self.next_slot()
        slot.values[:] = values
        slot.version = self.current.version - 1
        if slot.segment is not None:
            slot.segment.version = slot.version
        self._by_version[slot.version] = slot
        self.previous = slot

    def close(self) -> None:
        """Remove the shared memory of every slot."""
        for slot in self._slots:
            if slot.segment is not None:
                slot.segment.close()

    def _publish(self, slot: VersionSlot, version: int) -> None:
        slot.version = version
        if slot.segment is not None:
            slot.segment.version = version
        self._by_version[version] = slot
        self.current = slot

    def _offer(self, slot: VersionSlot) -> None:
        """Let the memory be used again if nobody holds the version and it is none of the newest two."""
        if slot.holders or slot is self.current or slot is self.previous:
            return
        if slot.retired:
            self._drop(slot)
        else:
            heapq.heappush(self._free, (slot.version, next(self._freed), slot))

    def _oldest_free(self) -> VersionSlot | None:
        while self._free:
            version, _, slot = heapq.heappop(self._free)
            if slot.version == version and not slot.holders and slot in self._slots:
                return slot
        return None

    def _one_more(self) -> VersionSlot:
        """A slot beyond those reserved at the start: in private memory (sent as frames) when the shared is used up."""
        try:
            return self._add_slot(self._directory)
        except SharedMemoryError as error:
            _log.warning("one more version is kept in private memory: %s", error)
            return self._add_slot(None)

    def _add_slot(self, directory: Path | None) -> VersionSlot:
        if directory is None:
            slot = VersionSlot(np.zeros(self._size, dtype=np.float32), None)
        else:
            segment = Segment.create(directory, self._size)
            slot = VersionSlot(segment.values, segment)
        self._slots.add(slot)
        return slot

    def _drop(self, slot: VersionSlot) -> None:
        self._slots.discard(slot)
        self._by_version.pop(slot.version, None)
        if slot.segment is not None:
            slot.segment.close()
