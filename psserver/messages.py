"""The messages of the protocol, one frozen dataclass each; `wire` turns them into frames and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

PROTOCOL_VERSION = 4

Count: TypeAlias = Annotated[int, Field(ge=0)]
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Curvature: TypeAlias = tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], Number]
Length: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text: TypeAlias = Annotated[str, Field(max_length=20_000)]
Name: TypeAlias = Annotated[str, Field(max_length=200)]
Role: TypeAlias = Literal["worker", "evaluator", "watcher"]


@dataclass(frozen=True)
class Slot:
    """A vector that lies in shared memory, by the name of its segment: sent in place of the bytes."""

    name: Annotated[str, Field(pattern=r"^yfps-[0-9a-z-]{1,100}$")]


Vector: TypeAlias = NDArray[np.float32] | Slot


@dataclass(frozen=True)
class Hello:
    """First message of a member: who it is, where it runs and which model it has.

    layout: digest of parameter and buffer names and shapes, "" to vouch for the sizes only;
    size, buffer_size: their numbers of float32 values.
    rank:   the worker number it wants, None to be given one.
    place:  names the kernel and process namespace, so that equal places can see each other's process ids.
    """

    role: Role
    layout: Name
    size: Count
    buffer_size: Count
    rank: Count | None
    host: Name
    place: Name
    pid: Count
    shared_memory: bool


@dataclass(frozen=True)
class Welcome:
    """Answer to Hello. `step` is the worker's last step that was applied: it goes on with the next one.

    session names this life of the server; gradient is the worker's slot, None when payloads travel as frames;
    heartbeat is the interval in seconds; buffers_every counts the pushes between two reports of buffers,
    curvature_every those between two measurements of curvature, distance_every those between two line searches (0: none
    is wanted).
    """

    session: Name
    worker: Count
    workers: Count
    seed: Count
    step: Count
    version: Count
    directory: Name
    gradient: Slot | None
    heartbeat: Number
    buffers_every: Count
    curvature_every: Count = 0
    distance_every: Count = 0


@dataclass(frozen=True)
class Push:
    """One gradient, computed at `version` of `session`; `step` counts a worker's pushes from 1.

    fresh: the worker's recurrent state began anew with this push (False for a task that keeps none).
    curvature: largest magnitude of an eigenvalue, and mean of the diagonal, of the Hessian of the same loss; or None.
    distance: length at which the same loss is least along −gradient, by a line search; or None.
    A loss or gradient that is not finite passes the wire and is refused by the server, so that it is counted.
    """

    session: Name
    step: Annotated[int, Field(ge=1)]
    version: Count
    loss: float
    gradient: Vector
    buffers: Vector | None
    fresh: bool = False
    curvature: Curvature | None = None
    distance: Length | None = None


@dataclass(frozen=True)
class Pull:
    """Asks for the newest parameters (and the averaged buffers)."""


@dataclass(frozen=True)
class Parameters:
    """The newest version. `final`: no later one will come. `buffers` only in answer to a Pull."""

    version: Count
    final: bool
    values: Vector
    buffers: Vector | None


@dataclass(frozen=True)
class Heartbeat:
    """Sign of life of the member with that routing id, sent from beside the computation."""

    member: Name


@dataclass(frozen=True)
class Alive:
    """Answer to a Heartbeat. known: the server counts the sender as a member."""

    session: Name
    version: Count
    known: bool
    final: bool


@dataclass(frozen=True)
class Report:
    """What an evaluator found for a version."""

    version: Count
    values: dict[Name, float]


@dataclass(frozen=True)
class Noted:
    """Answer to a Report."""


@dataclass(frozen=True)
class Goodbye:
    """Last message of a member. `pushes` is its own count of distinct steps pushed in this life."""

    reason: Literal["done", "interrupted", "failed"]
    text: Text
    pushes: Count


@dataclass(frozen=True)
class Stop:
    """The run is over for this member, and why."""

    reason: Literal["done", "interrupted", "failed"]
    text: Text


@dataclass(frozen=True)
class Refusal:
    """A message was not accepted. Codes: see `RefusalCode`; `text` says expected and got."""

    code: Literal["wire", "layout", "rank", "unknown", "stale", "not-finite", "busy"]
    text: Text


@dataclass(frozen=True)
class Watch:
    """Asks for a Status; needs no Hello."""


@dataclass(frozen=True)
class MemberStatus:
    """One row of the display. rate: pushes a second; last_seen: seconds ago."""

    worker: Count
    role: Role
    state: Literal["computing", "waiting", "lost", "left"]
    host: Name
    pushes: Count
    rejected: Count
    staleness: Count | None
    rate: Number
    last_seen: Number


@dataclass(frozen=True)
class Status:
    """How the run stands. Means are over the last hundred updates; seconds since its start."""

    phase: Literal["waiting", "training", "draining", "done"]
    version: Count
    updates: Count
    seconds: Number
    loss: float | None
    learning_rate: float | None
    momentum: float | None
    target_momentum: float | None
    total_momentum: float | None
    staleness_mean: float | None
    staleness_p95: float | None
    rate: Number
    applied: Count
    rejected: Count
    repeated: Count
    lost: Count
    evaluation: dict[Name, float]
    evaluated_at: Count | None
    members: tuple[MemberStatus, ...]
    events: tuple[Text, ...]


Request: TypeAlias = Hello | Push | Pull | Heartbeat | Report | Goodbye | Watch
Reply: TypeAlias = Welcome | Parameters | Alive | Noted | Stop | Refusal | Status
Message: TypeAlias = Request | Reply
