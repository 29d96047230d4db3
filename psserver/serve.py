"""The ROUTER loop around a `ParameterServer`: receive, decode, handle, encode, send. It decides nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from psserver import wire
from psserver.checkpoint import Checkpoints
from psserver.errors import AddressError, CheckpointError, WireError
from psserver.server import ParameterServer
from psserver.wire import Limits, Message, Parameters, Push, Refusal, Reply, Slot, Stop

_POLL_MS = 100
_TICK_SECONDS = 0.25
_HEARTBEAT_MS = 5_000
_LINGER_MS = 1_000
_HEADER_ROOM = 1 << 20


def serve(
    server: ParameterServer,
    bind: str | Sequence[str],
    *,
    checkpoints: Checkpoints | None = None,
    stopping: Callable[[], str | None] = lambda: None,
    bound: Callable[[list[str]], None] = lambda addresses: None,
) -> dict[str, Any]:
    """Serve until the run is over; return its summary. Everything it took is given back, however it ends.

    bind:        tcp://HOST:PORT (port * for a free one) or ipc://PATH, or several of them.
    checkpoints: where and how often to save; None for never.
    stopping:    asked several times a second: a sentence ends the run there, with a checkpoint.
    bound:       told the addresses, with real ports, once workers can connect.

    Raises AddressError when it cannot bind, CheckpointError when the last checkpoint cannot be written.
    """
    context = zmq.Context()
    loop = _Loop(server, context.socket(zmq.ROUTER), checkpoints)
    try:
        bound([loop.bind(address) for address in ([bind] if isinstance(bind, str) else bind)])
        loop.run(stopping)
        return loop.finish()
    finally:
        server.close()
        loop.socket.close(linger=_LINGER_MS)
        context.term()


class _Loop:
    """Owns the socket, in the one thread that calls it."""

    def __init__(self, server: ParameterServer, socket: zmq.Socket[bytes], checkpoints: Checkpoints | None) -> None:
        self.server = server
        self.socket = socket
        self._checkpoints = checkpoints
        buffers = server.averaged_buffers().numel()
        self._limits = Limits(server.size, buffers)
        self._sequences: dict[str, int] = {}
        self._ticked = 0.0
        largest = server.options.max_message_bytes or 4 * max(server.size, buffers) + _HEADER_ROOM
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, largest)
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 4 * _HEARTBEAT_MS)
        socket.setsockopt(zmq.SNDTIMEO, 0)

    def bind(self, address: str) -> str:
        """Bind and return the address that workers connect to."""
        self.socket.setsockopt(zmq.IPV6, int("[" in address))
        try:
            self.socket.bind(address)
        except zmq.ZMQError as error:
            raise AddressError(_bind_failure(address, error)) from error
        endpoint: bytes = self.socket.getsockopt(zmq.LAST_ENDPOINT)  # type: ignore[assignment]
        return endpoint.decode().rstrip("\0")

    def run(self, stopping: Callable[[], str | None]) -> None:
        """Answer messages until the run is over."""
        while self.server.phase != "done":
            if self.socket.poll(_POLL_MS, zmq.POLLIN):
                self._drain()
            if time.monotonic() - self._ticked > _TICK_SECONDS:
                self._tick(stopping)

    def finish(self) -> dict[str, Any]:
        """Tell everybody, save, and sum up."""
        for member in self.server.members:
            if member.present:
                self._send(member.key, 0, Stop(*self.server.reason))
        failure: CheckpointError | None = None
        if self._checkpoints is not None:
            try:
                self._checkpoints.save(self.server.version, self.server.state_dict())
            except CheckpointError as error:
                failure = error
                self.server.journal.event("checkpoint", None, str(error))
        summary = self.server.summary()
        if failure is not None:
            raise failure
        return summary

    def _drain(self) -> None:
        """Take every message that is there, so that one poll serves many."""
        with contextlib.suppress(zmq.Again):
            while self.server.phase != "done":
                identity, *frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
                self._receive(identity.bytes.hex(), [frame.buffer for frame in frames])

    def _receive(self, sender: str, frames: list[memoryview]) -> None:
        try:
            message, sequence = wire.decode(frames, self._limits)
            self._sequences[sender] = sequence
            reply = self.server.handle(sender, self._resolve(sender, message))
        except WireError as error:
            reply, sequence = Refusal("wire", str(error)), wire.sequence_of(frames)
        if reply is not None:
            self._send(sender, sequence, reply)
        for receiver, due in self.server.released():
            self._send(receiver, self._sequences.get(receiver, 0), due)
        self._save_if_due()

    def _resolve(self, sender: str, message: Message) -> wire.Request:
        """Put the gradient that lies in the sender's slot in place of the slot's name."""
        if isinstance(message, Push) and isinstance(message.gradient, Slot):
            member = self.server.members.find(sender)
            if member is not None:
                segment = member.gradient
                if segment is None or segment.path.name != message.gradient.name:
                    raise WireError(f"Push.gradient: expected this worker's own slot, got {message.gradient.name}")
                return dataclasses.replace(message, gradient=segment.values)
        if isinstance(message, Push) and isinstance(message.buffers, Slot):
            raise WireError("Push.buffers: expected a frame, got a slot")
        if not isinstance(message, wire.Request):
            raise WireError(f"message: expected a request, got {type(message).__name__}")
        return message

    def _send(self, receiver: str, sequence: int, reply: Reply) -> None:
        """Send, or let go of a receiver that is not there: it will ask again."""
        if isinstance(reply, Parameters):
            reply = self._by_slot(receiver, reply)
        frames = [bytes.fromhex(receiver), *wire.encode(reply, sequence)]
        with contextlib.suppress(zmq.Again):
            try:
                self.socket.send_multipart(frames, copy=False)
            except zmq.ZMQError as error:
                if error.errno != errno.EHOSTUNREACH:
                    raise

    def _by_slot(self, receiver: str, reply: Parameters) -> Parameters:
        """A member on this host is told where the version lies."""
        member = self.server.members.find(receiver)
        held = self.server.trajectory.at(reply.version)
        if member is None or not member.hello.shared_memory or held is None or held.segment is None:
            return reply
        return dataclasses.replace(reply, values=Slot(held.segment.path.name))

    def _tick(self, stopping: Callable[[], str | None]) -> None:
        self._ticked = time.monotonic()
        self.server.tick()
        for receiver, due in self.server.released():
            self._send(receiver, self._sequences.get(receiver, 0), due)
        self._sequences = {k: v for k, v in self._sequences.items() if self.server.members.find(k) is not None}
        self.server.journal.flush()
        reason = stopping()
        if reason is not None:
            self.server.stop("interrupted", reason)

    def _save_if_due(self) -> None:
        """Save on the way; a failure there is told, and the run goes on to the next."""
        if self._checkpoints is None or not self._checkpoints.due(self.server.version, self.server.plan.updates):
            return
        try:
            path = self._checkpoints.save(self.server.version, self.server.state_dict())
            self.server.journal.event("checkpoint", None, f"saved {path.name}")
        except CheckpointError as error:
            self.server.journal.event("checkpoint", None, str(error))


def _bind_failure(address: str, error: zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        what = "the port is in use; choose another one, or port * for any that is free"
    elif error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        what = "this host has no such address or interface; 127.0.0.1 is always there"
    elif error.errno == errno.ENAMETOOLONG:
        what = "the path is longer than the 107 bytes that a socket's may have"
    else:
        what = f"{error.strerror}"
    return f"cannot bind {address}: {what}"
