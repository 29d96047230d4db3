"""Who takes part: workers and evaluators, what each holds, and when one counts as lost."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch

from psserver.messages import Hello, MemberStatus, Role
from psserver.place import process_exists
from psserver.shared_memory import Segment

State = Literal["computing", "waiting", "lost", "left"]
_RECENT = 20


@dataclass(eq=False)
class Member:
    """One worker or evaluator. A worker keeps its number, and its counts, when it comes back.

    key:        routing id of its connection.
    step:       its last step that was accounted for, applied or refused; a push of that step or before is a repetition.
    pulled:     its last request was a pull, which is answered with the averaged buffers, too.
    not_finite: how many of its last gradients, without a finite one between, were not.
    holding:    the version it may be reading, and computes its gradient at.
    """

    number: int
    role: Role
    key: str
    hello: Hello
    heard: float
    state: State = "waiting"
    step: int = 0
    pulled: bool = False
    pushes: int = 0
    rejected: int = 0
    not_finite: int = 0
    staleness: int | None = None
    holding: int | None = None
    gradient: Segment | None = None
    buffers: torch.Tensor | None = None
    push_times: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.role} {self.number}" if self.role == "worker" else self.role

    @property
    def present(self) -> bool:
        """Taking part now."""
        return self.state in ("computing", "waiting")

    def account(self, step: int, now: float) -> None:
        """A push of this step came in; it is never looked at again."""
        self.step = step
        self.pulled = False
        self.pushes += 1
        self.push_times.append(now)

    def drop_gradient(self) -> None:
        """Remove the shared memory of its gradient, if it has any."""
        if self.gradient is not None:
            self.gradient.close()
            self.gradient = None

    def rate(self, now: float) -> float:
        """Pushes a second over the last few."""
        times = self.push_times
        if len(times) < 2 or not self.present:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], now - times[-1], 1e-9)

    def status(self, now: float) -> MemberStatus:
        """The member as a row of the display."""
        return MemberStatus(
            worker=self.number,
            role=self.role,
            state=self.state,
            host=f"{self.hello.host:.150}:{self.hello.pid}",
            pushes=self.pushes,
            rejected=self.rejected,
            staleness=self.staleness,
            rate=self.rate(now),
            last_seen=max(now - self.heard, 0.0),
        )


class Members:
    """All members by connection and by number."""

    def __init__(self, heartbeat_timeout: float) -> None:
        self._timeout = heartbeat_timeout
        self._by_key: dict[str, Member] = {}
        self._workers: dict[int, Member] = {}  # in the order of numbers
        self._others: dict[str, Member] = {}
        self._steps: dict[int, int] = {}

    def __iter__(self) -> Iterator[Member]:
        """Workers by number, then the others."""
        yield from self._workers.values()
        yield from self._others.values()

    @property
    def workers(self) -> list[Member]:
        """Every worker that ever joined, by number."""
        return list(self._workers.values())

    def find(self, key: str) -> Member | None:
        """The member behind a connection, if it takes part."""
        return self._by_key.get(key)

    def taken(self, rank: int, key: str) -> Member | None:
        """The present worker that has this number on another connection."""
        member = self._workers.get(rank)
        return member if member is not None and member.present and member.key != key else None

    def join(self, key: str, hello: Hello, now: float) -> Member:
        """Admit a member, under its old number if it had one."""
        if hello.role == "worker":
            number = hello.rank if hello.rank is not None else self._lowest_free(key)
            member = self._workers.get(number)
            if member is None:
                member = Member(number, "worker", key, hello, now, step=self._steps.get(number, 0))
                in_order = not self._workers or number > next(reversed(self._workers))
                self._workers[number] = member
                if not in_order:
                    self._workers = dict(sorted(self._workers.items()))
        else:
            self._others = {k: m for k, m in self._others.items() if m.present or k == key}
            taken = {m.number for m in self._others.values()}
            free = next(number for number in itertools.count() if number not in taken)
            member = self._others.setdefault(key, Member(free, hello.role, key, hello, now))
        self._by_key.pop(member.key, None)
        member.key, member.hello, member.heard, member.state = key, hello, now, "waiting"
        self._by_key[key] = member
        return member

    def part(self, member: Member, state: Literal["lost", "left"]) -> None:
        """A member no longer takes part; what it says on this connection from now on is unknown."""
        member.state = state
        self._by_key.pop(member.key, None)

    def overdue(self, now: float, place: str) -> list[tuple[Member, str]]:
        """Members that are gone, and how that shows: the process on this host, or silence."""
        gone = []
        for member in list(self._by_key.values()):
            silence = now - member.heard
            if member.hello.place == place and not process_exists(member.hello.pid):
                gone.append((member, f"its process {member.hello.pid} is gone"))
            elif silence > self._timeout:
                gone.append((member, f"silent for {silence:.1f} s (limit {self._timeout:g} s)"))
        return gone

    def excuse(self, seconds: float) -> None:
        """The server itself was away for that long: nobody's silence in that time counts."""
        for member in self._by_key.values():
            member.heard += seconds

    def state_dict(self) -> dict[str, int]:
        """Last accounted step of each worker number."""
        return {**{str(n): s for n, s in self._steps.items()}, **{str(m.number): m.step for m in self.workers}}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue the counts, so that no push is applied twice."""
        self._steps = {int(number): step for number, step in state.items()}

    def _lowest_free(self, key: str) -> int:
        known = self._by_key.get(key)
        if known is not None:
            return known.number
        number = 0
        while number in self._workers and self._workers[number].present:
            number += 1
        return number
