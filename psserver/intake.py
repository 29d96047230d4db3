"""Where a gradient is judged and applied: at once, or in a synchronous round."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from psserver.gate import Contribution, Gate, all_finite, mean_curvature, mean_distance, mean_gradient
from psserver.journal import Journal
from psserver.members import Member
from psserver.metrics import Arrival
from psserver.update import Updater
from psserver.wire import Push, Refusal, Slot
from tuner import NonFiniteGradient

_ALIGNMENT = 64
_NOT_FINITE = Refusal("not-finite", "gradient: expected finite values, got NaN or infinity")


class Intake:
    """Applies pushes through an `Updater`. A `Refusal` says why a push was not applied; nothing changed then.

    bound:     the largest staleness there can be.
    threshold: R of `rule.staleness` "threshold": a gradient of at least that staleness is discarded.
    """

    def __init__(
        self, updater: Updater, gate: Gate, journal: Journal, session: str, bound: int | None, threshold: int | None
    ) -> None:
        self._updater = updater
        self._gate = gate
        self._journal = journal
        self._bound, self._threshold = bound, threshold
        self._session = session
        self._first_version = updater.trajectory.version

    @property
    def version(self) -> int:
        """The newest version."""
        return self._updater.trajectory.version

    def judge(self, push: Push) -> Refusal | None:
        """Why a push cannot be applied, None when it can.

        A gradient from an earlier life of the server is good up to the version that this life resumed from.
        """
        size = self._updater.trajectory.current.values.size
        if isinstance(push.gradient, Slot) or push.gradient.size != size:
            return Refusal("wire", f"Push.gradient: expected {size} values, got {push.gradient!r:.80}")
        newest = self.version if push.session == self._session else self._first_version
        if push.version > newest:
            return Refusal(
                "stale", f"version: expected at most {newest} of this life of the server, got {push.version}"
            )
        staleness = self.version - push.version
        if self._gate.synchronous and staleness:
            return Refusal("stale", f"staleness: expected 0 in synchronous mode, got {staleness}")
        if self._bound is not None and staleness > self._bound:
            return Refusal("stale", f"staleness: expected at most {self._bound}, got {staleness}")
        if self.discards(push.version):
            return Refusal(
                "stale",
                f"staleness: expected below {self._threshold}, from which on rule.staleness 'threshold' discards, got "
                f"{staleness}",
            )
        if self._updater.lacks(push.version):
            return Refusal(
                "stale",
                "version: expected one still kept, which rule.staleness or tuner.target compares with, got "
                f"{push.version}",
            )
        if not math.isfinite(push.loss):
            return Refusal("not-finite", f"loss: expected a finite number, got {push.loss}")
        return None

    def discards(self, version: int) -> bool:
        """Whether a gradient computed at that version is older than the threshold lets pass."""
        return self._threshold is not None and self.version - version >= self._threshold

    def take(self, member: Member, push: Push) -> Refusal | None:
        """Apply a push that was judged good, or add it to the round."""
        member.staleness = self.version - push.version
        arrival = Arrival(member.number, push.step, push.fresh, push.curvature, push.distance)
        gradient = _tensor(push.gradient)
        if not self._gate.synchronous:
            return self._update(gradient, push.version, push.loss, [arrival], member.number)
        if not all_finite(gradient):
            return _NOT_FINITE
        self._gate.contribute(Contribution(arrival, push.loss, gradient))
        return None

    def close_round(self, computing: Callable[[], Sequence[int]]) -> Refusal | None:
        """Make the synchronous update, once nobody computes any more."""
        closed = self._gate.close_round(computing)
        if not closed:
            return None
        loss = sum(c.loss for c in closed) / len(closed)
        arrivals = [c.arrival for c in closed]
        refusal = self._update(mean_gradient(closed), self.version, loss, arrivals)
        if refusal is not None:
            for arrival in arrivals:
                self._journal.refuse(self.version, self.version, arrival, refusal.code)
        return refusal

    def _update(
        self, gradient: torch.Tensor, version: int, loss: float, arrivals: list[Arrival], worker: int = 0
    ) -> Refusal | None:
        try:
            curvature, distance = mean_curvature(arrivals), mean_distance(arrivals)
            update = self._updater.apply(gradient, version, loss, curvature, worker, distance)
        except NonFiniteGradient:
            return _NOT_FINITE
        self._journal.update(update, version, loss, arrivals)
        return None


def _tensor(values: NDArray[np.float32] | Slot) -> torch.Tensor:
    """The values as a tensor: the same memory, or a copy of what came as a frame.

    A frame is read-only and lies at any address, and the last bits of a sum of products depend on the alignment of its
    terms; so that a replay finds the same bits, every gradient begins at a multiple of 64 bytes, as tensors do.
    """
    if isinstance(values, Slot):
        raise TypeError("expected values, got a slot that was not resolved")
    if values.flags.writeable and values.ctypes.data % _ALIGNMENT == 0:
        return torch.from_numpy(values)
    aligned = torch.empty(values.size)
    aligned.numpy()[:] = values
    return aligned
