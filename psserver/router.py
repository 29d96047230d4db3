"""The ROUTER loop around a `ParameterServer`: receive, decode, handle, encode, send. It decides nothing."""

from __future__ import annotations

import dataclasses
import errno
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import zmq

from psserver import wire
from psserver.checkpoint import Checkpoints
from psserver.errors import AddressError, CheckpointError, ConfigurationError, WireError
from psserver.server import ParameterServer
from psserver.wire import Limits, Message, Parameters, Push, Refusal, Reply, Slot, Stop

_POLL_MS = 100
_TICK_SECONDS = 0.25
_HEARTBEAT_MS = 5_000
_LINGER_MS = 1_000
_HEADER_ROOM = 1 << 20
_QUEUE = 32  # messages of one connection, each way; more than the one request and the heartbeats that a client has
_ZERO_COPY_BYTES = 1 << 16  # below, a copy is cheaper than keeping the memory until it is sent


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

    Raises AddressError when it cannot bind, ConfigurationError when messages may not be as long as this model needs,
    CheckpointError when the last checkpoint cannot be written.
    """
    context = zmq.Context()
    loop = _Loop(server, context.socket(zmq.ROUTER), checkpoints)
    try:
        loop.limit()
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
        self._limits = Limits(server.size, server.averaged_buffers().numel())
        self._sequences: dict[str, int] = {}
        self._sending: list[tuple[zmq.MessageTracker, int]] = []
        self._ticked = time.monotonic()
        self._heard_all = True

    def limit(self) -> None:
        """Bound what a peer can make this process hold: bytes of a frame, messages each way of a connection."""
        longest = 4 * max(self._limits.size or 0, self._limits.buffer_size or 0)
        allowed = self.server.options.max_message_bytes or longest + _HEADER_ROOM
        if allowed < longest:
            raise ConfigurationError(
                f"server.max_message_bytes: expected at least {longest}, which this model needs, got {allowed}"
            )
        for option, value in (
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.ROUTER_HANDOVER, 1),
            (zmq.MAXMSGSIZE, max(allowed, _HEADER_ROOM)),
            (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, 4 * _HEARTBEAT_MS),
            (zmq.SNDTIMEO, 0),
            (zmq.SNDHWM, _QUEUE),
            (zmq.RCVHWM, _QUEUE),
        ):
            self.socket.setsockopt(option, value)

    def bind(self, address: str) -> str:
        """Bind and return the address that workers connect to."""
        self.socket.setsockopt(zmq.IPV6, int("[" in address))
        if _answers(address):
            raise AddressError(f"cannot bind {address}: another server uses it; choose another path")
        try:
            self.socket.bind(address)
        except zmq.ZMQError as error:
            raise AddressError(_bind_failure(address, error)) from error
        endpoint: bytes = self.socket.getsockopt(zmq.LAST_ENDPOINT)  # type: ignore[assignment]
        return endpoint.decode().rstrip("\0")

    def run(self, stopping: Callable[[], str | None]) -> None:
        """Answer messages until the run is over."""
        while self.server.phase != "done":
            self._heard_all = not self.socket.poll(_POLL_MS, zmq.POLLIN) or self._drain()
            if time.monotonic() - self._ticked > _TICK_SECONDS:
                self._tick(stopping)

    def finish(self) -> dict[str, Any]:
        """Tell everybody, also those whose last message still waits here; save, and sum up."""
        for member in self.server.members:
            if member.present:
                self._send(member.key, 0, Stop(*self.server.reason))
        self._drain()
        failure: CheckpointError | None = None
        if self._checkpoints is not None:
            self.server.journal.flush()
            try:
                self._checkpoints.save(self.server.version, self.server.state_dict())
            except CheckpointError as error:
                failure = error
                self.server.journal.event("checkpoint", None, str(error))
        summary = self.server.summary()
        if failure is not None:
            raise failure
        return summary

    def _drain(self) -> bool:
        """Take the messages that are there, so that one poll serves many; False when time ran out before the last."""
        until = time.monotonic() + _TICK_SECONDS
        while time.monotonic() < until:
            try:
                identity, *frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return True
            self._receive(identity.bytes.hex(), [frame.buffer for frame in frames])
        return False

    def _receive(self, sender: str, frames: list[memoryview]) -> None:
        self._let_go_of_sent()
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
        """Send, or let go of a receiver that is not there or does not listen: it will ask again."""
        if isinstance(reply, Parameters):
            reply = self._by_slot(receiver, reply)
        header, *vectors = wire.encode(reply, sequence)
        parts = [zmq.Frame(vector, track=True, copy=len(vector) < _ZERO_COPY_BYTES) for vector in vectors]
        if not self._sent([bytes.fromhex(receiver), header, *parts]):
            return
        if isinstance(reply, Parameters) and isinstance(reply.values, np.ndarray) and not parts[0].tracker.done:
            self.server.trajectory.hold(reply.version)
            self._sending.append((parts[0].tracker, reply.version))

    def _sent(self, frames: list[Any]) -> bool:
        for _ in range(2):
            try:
                self.socket.send_multipart(frames, copy=False)
            except zmq.ZMQError as error:
                if error.errno == errno.EHOSTUNREACH:
                    return False
                if error.errno != errno.EAGAIN:
                    raise
                self.socket.poll(0)  # takes in what was delivered meanwhile, which a send by itself may put off
            else:
                return True
        return False

    def _let_go_of_sent(self) -> None:
        """Versions that were sent as frames may be overwritten once ZeroMQ has no part of them to send any more."""
        sending, self._sending = self._sending, []
        for tracker, version in sending:
            if tracker.done:
                self.server.trajectory.release(version)
            else:
                self._sending.append((tracker, version))

    def _by_slot(self, receiver: str, reply: Parameters) -> Parameters:
        """A member on this host is told where the version lies."""
        member = self.server.members.find(receiver)
        held = self.server.trajectory.at(reply.version)
        if member is None or not member.hello.shared_memory or held is None or held.segment is None:
            return reply
        return dataclasses.replace(reply, values=Slot(held.segment.path.name))

    def _tick(self, stopping: Callable[[], str | None]) -> None:
        away, self._ticked = time.monotonic() - self._ticked, time.monotonic()
        if away > self.server.options.heartbeat_timeout / 4:
            self.server.excuse(away)
        self._let_go_of_sent()
        self.server.tick(heard_all=self._heard_all)
        for receiver, due in self.server.released():
            self._send(receiver, self._sequences.get(receiver, 0), due)
        self._sequences = {k: v for k, v in self._sequences.items() if self.server.members.find(k) is not None}
        self._save_if_due()
        self.server.journal.flush()
        reason = stopping()
        if reason is not None:
            self.server.stop("interrupted", reason)

    def _save_if_due(self) -> None:
        """Save on the way; a failure there is told, and the run goes on to the next."""
        if self._checkpoints is None or not self._checkpoints.due(self.server.version, self.server.plan.updates):
            return
        self.server.journal.flush()  # no checkpoint is ever ahead of the record
        try:
            path = self._checkpoints.save(self.server.version, self.server.state_dict())
            self.server.journal.event("checkpoint", None, f"saved {path.name}")
        except CheckpointError as error:
            self.server.journal.event("checkpoint", None, str(error))


def _answers(address: str) -> bool:
    """Whether a live server has this ipc path: ZeroMQ would take it away from that server without a word."""
    if not address.startswith("ipc://"):
        return False
    path = address.removeprefix("ipc://")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError:
            return False
    return True


def _bind_failure(address: str, error: zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        what = "the port is in use; choose another one, or port * for any that is free"
    elif error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        what = "this host has no such address or interface; 127.0.0.1 is always there"
    elif error.errno == errno.ENAMETOOLONG:
        what = "the path is longer than the 107 bytes that a socket's may have"
    else:
        what = zmq.strerror(error.errno or 0)
    return f"cannot bind {address}: {what}"
