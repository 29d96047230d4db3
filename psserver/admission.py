"""The door: which members are admitted, and what they are told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from psserver.eigenbasis import Placed
from psserver.errors import SharedMemoryError
from psserver.journal import Journal
from psserver.members import Member, Members
from psserver.messages import Hello, Refusal, Slot, Welcome
from psserver.options import ServerOptions
from psserver.place import here
from psserver.shared_memory import Segment


@dataclass(frozen=True)
class Model:
    """What is trained: initial parameters (float32 [N]) and buffers (float32 [B]), and the digest of their layout.

    layers: how many of the parameters each layer has, in their order; the whole is one layer without it.
    embeddings: which of the layers, by number, are embeddings.
    fans: the fan-in of each layer, 0 where it has none; nothing is known of them without it.
    tensors: where each tensor of two dimensions or more begins, and its shape; embeddings' are left out.
    """

    parameters: NDArray[np.float32]
    buffers: NDArray[np.float32]
    layout: str
    layers: tuple[int, ...] = ()
    embeddings: tuple[int, ...] = ()
    fans: tuple[int, ...] = ()
    tensors: tuple[Placed, ...] = ()


@dataclass(frozen=True)
class Plan:
    """How far: the run ends with version `updates`; `workers` are expected; `seed` is given to each of them.

    curvature_every: pushes of a worker between two measurements of curvature; 0 for none.
    distance_every:  pushes of a worker between two line searches for the distance; 0 for none.
    """

    updates: int
    workers: int
    seed: int = 0
    curvature_every: int = 0
    distance_every: int = 0


class Admission:
    """Checks a Hello against the model and the ranks taken, and gives a local worker its gradient slot."""

    def __init__(self, model: Model, plan: Plan, options: ServerOptions, members: Members, journal: Journal) -> None:
        self._shape = (model.layout, model.parameters.size, model.buffers.size)
        self._plan = plan
        self._options = options
        self._members = members
        self._journal = journal
        self._place = here()

    def refusal(self, sender: str, hello: Hello) -> Refusal | None:
        """Why this Hello cannot be admitted, None when it can."""
        layout, size, buffer_size = self._shape
        if (hello.layout or layout, hello.size, hello.buffer_size) != self._shape:
            return Refusal(
                "layout",
                f"model: expected {size} parameters and {buffer_size} buffer values (layout {layout:.12}), got "
                f"{hello.size} and {hello.buffer_size} (layout {hello.layout:.12}); start the worker with the "
                "experiment that the server was started with",
            )
        if hello.role == "worker" and hello.rank is not None:
            other = self._members.taken(hello.rank, sender)
            if other is not None:
                holder = f"{other.hello.host}:{other.hello.pid}"
                return Refusal("rank", f"rank: expected a free one, got {hello.rank}, which {holder} has")
        return None

    def admit(self, sender: str, hello: Hello, now: float) -> Member:
        """Make the sender a member, or know it again."""
        kernel = self._place.split()[:1]
        shared = self._options.shared_memory and hello.shared_memory and hello.place.split()[:1] == kernel
        hello = replace(hello, shared_memory=shared)
        known = self._members.find(sender)
        shared_before = known is not None and known.hello.shared_memory
        member = self._members.join(sender, hello, now)
        if not hello.shared_memory or member is not known:
            member.drop_gradient()
        if hello.shared_memory and hello.role == "worker" and member.gradient is None:  # a Hello may come twice
            try:
                member.gradient = Segment.create(Path(self._options.shared_memory_dir), hello.size)
            except SharedMemoryError as error:
                self._journal.event("memory", member, f"{member.name} must send frames: {error}")
        how = "shared memory" if hello.shared_memory else "frames"
        if known is None:
            self._journal.event("joined", member, f"{member.name} joined from {hello.host}:{hello.pid} ({how})")
        elif shared_before and not hello.shared_memory:
            self._journal.event("memory", member, f"{member.name} sees no shared memory of the server: it uses frames")
        return member

    def welcome(self, member: Member, session: str, version: int) -> Welcome:
        """What a new member is told."""
        return Welcome(
            session=session,
            worker=member.number,
            workers=self._plan.workers,
            seed=self._plan.seed,
            step=member.step,
            version=version,
            directory=self._options.shared_memory_dir,
            gradient=Slot(member.gradient.path.name) if member.gradient else None,
            heartbeat=min(self._options.heartbeat_timeout / 4, 5.0),
            buffers_every=self._options.buffers_every,
            curvature_every=self._plan.curvature_every,
            distance_every=self._plan.distance_every,
        )
