"""Hands versions to members: at once, or when the gate lets them start; keeps what a member may be reading."""

from __future__ import annotations

import torch

from psserver.gate import Gate
from psserver.members import Member, Members
from psserver.messages import Parameters, Reply, Stop
from psserver.trajectory import Trajectory


class Handout:
    """Replies with parameters. A member holds the version it was given until its next request.

    buffers: BatchNorm statistics (float32 [B]) to give while no worker has reported any.
    `end` is what workers are told once no further update will be made; None before.
    """

    def __init__(self, trajectory: Trajectory, gate: Gate, members: Members, buffers: torch.Tensor) -> None:
        self._trajectory = trajectory
        self._gate = gate
        self._members = members
        self._buffers = buffers
        self._due: dict[str, Reply] = {}

    def answer(self, member: Member, end: Stop | None) -> Reply | None:
        """The newest parameters for a member that is ready for them; None if it has to wait."""
        if member.role != "worker":
            return self._hand_out(member, final=end is not None)
        if end is not None:
            return end
        self.release(member)
        self._gate.enter(member)
        self._let_go(end)
        return self._due.pop(member.key, None)

    def again(self, member: Member, end: Stop | None) -> Reply | None:
        """What a repeated push is answered with: while the first reply may still be on its way, the same."""
        if self._gate.holds(member):
            return None
        if end is not None or member.holding is None:
            return self.answer(member, end)
        return self._parameters(member, member.holding, final=False)

    def due(self, end: Stop | None) -> list[tuple[str, Reply]]:
        """Replies, with their receivers, that were held back and need not wait any longer."""
        self._let_go(end)
        due, self._due = self._due, {}
        return list(due.items())

    def release(self, member: Member, *, unread: bool = False) -> None:
        """The member is done with what it was given (`unread`: or still at it, and nobody will ever know)."""
        if member.holding is not None:
            self._trajectory.release(member.holding, unread=unread)
            member.holding = None
        if member.state == "computing":
            member.state = "waiting"

    def computing(self) -> list[int]:
        """Versions at which workers compute."""
        return [m.holding for m in self._members.workers if m.state == "computing" and m.holding is not None]

    def averaged_buffers(self) -> torch.Tensor:
        """Mean of the BatchNorm statistics last reported by each worker (float32 [B])."""
        reported = [member.buffers for member in self._members if member.buffers is not None]
        if reported:
            self._buffers = torch.stack(reported).mean(dim=0)
        return self._buffers

    def _let_go(self, end: Stop | None) -> None:
        if end is not None:
            self._due.update({member.key: end for member in self._gate.take_all()})
        while (member := self._gate.next_ready(self._trajectory.version, self.computing)) is not None:
            self._due[member.key] = self._hand_out(member, final=False)

    def _hand_out(self, member: Member, *, final: bool) -> Parameters:
        self.release(member)
        self._trajectory.hold(self._trajectory.version)
        member.holding, member.state = self._trajectory.version, "computing"
        return self._parameters(member, member.holding, final)

    def _parameters(self, member: Member, version: int, final: bool) -> Parameters:
        buffers = self.averaged_buffers().numpy() if member.pulled else None
        return Parameters(version, final, self._trajectory.values(version), buffers)
