"""The DEALER sockets of a client: ask, ask again when the answer is lost, and give signs of life meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid

import zmq

from psserver import wire
from psserver.errors import AddressError, ServerLostError, WireError
from psserver.wire import Refusal, Reply, Request, Stop, Welcome
from worker.reach import why_unreachable

_POLL_MS = 100
_ASK_AGAIN = 5.0  # seconds; doubles up to _ASK_AGAIN_MOST
_ASK_AGAIN_MOST = 30.0
_RANK_RETRY = 0.5  # seconds between two tries for a rank that a dying process still holds
_NEWS_SECONDS = 0.5  # how old the news may be that an evaluator waits for
_HEARTBEAT_MS = 5_000
_LINGER_MS = 500
_HEADER_ROOM = 1 << 20  # longest header, in bytes


class RunOver(Exception):
    """The server says that the run is over; `reason` is done, interrupted or failed."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.text)
        self.reason = stop.reason


class ServerChanged(Exception):
    """The server does not know this client (any more): join again, then repeat the request."""


class Pulse:
    """Sends a Heartbeat every `interval` seconds; remembers what the server answered last.

    last_heard: `time.monotonic()` of the last answer.
    answer:     the last `Alive`, None before the first.
    """

    def __init__(self, address: str, member: str, interval: float) -> None:
        self.last_heard = time.monotonic()
        self.answer: wire.Alive | None = None
        self._address = address
        self._interval = interval
        self._frames = wire.encode(wire.Heartbeat(member))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="yfps-heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and wait until the thread and its socket are gone."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, _HEADER_ROOM)
        try:
            socket.connect(self._address)
            due = 0.0
            while not self._closing.is_set():
                if time.monotonic() >= due:
                    self._beat(socket)
                    due = time.monotonic() + self._interval
                if socket.poll(_POLL_MS, zmq.POLLIN):
                    self._listen(socket)
        finally:
            socket.close()
            context.term()

    def _beat(self, socket: zmq.Socket[bytes]) -> None:
        try:
            socket.send_multipart(self._frames, zmq.NOBLOCK)
        except zmq.Again:
            return  # the server is away

    def _listen(self, socket: zmq.Socket[bytes]) -> None:
        try:
            message, _ = wire.decode(socket.recv_multipart())
        except WireError:
            return
        if isinstance(message, wire.Alive):
            self.answer = message
            self.last_heard = time.monotonic()


class Connection:
    """Requests and replies, one at a time, over a connection that may break. Used by one thread.

    patience: seconds without any sign of the server after which AddressError or ServerLostError is raised.
    """

    def __init__(self, address: str, limits: wire.Limits, patience: float) -> None:
        self.address = address
        self._limits = limits
        self._patience = patience
        self._identity = b"y" + uuid.uuid4().bytes
        self._sequence = 0
        self._pulse: Pulse | None = None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.ROUTING_ID, self._identity)
        self._socket.setsockopt(zmq.IPV6, 1)
        longest = 4 * max(limits.size or 0, limits.buffer_size or 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, longest + _HEADER_ROOM)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 4 * _HEARTBEAT_MS)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise AddressError(
                f"cannot connect to {address!r}: expected tcp://HOST:PORT or ipc://PATH ({error})"
            ) from error

    def news(self, welcome: Welcome) -> wire.Alive | None:
        """The server's last answer to a heartbeat. Raises RunOver, ServerChanged and ServerLostError."""
        reply = self._receive(0)
        if isinstance(reply, Stop):
            raise RunOver(reply)
        self._check_same(welcome)
        self._check_patience(0.0, joining=False)
        return self._pulse.answer if self._pulse else None

    def hello(self, hello: wire.Hello) -> Welcome | Refusal:
        """Join; keeps asking for a rank that is still taken as long as patience lasts."""
        give_up = time.monotonic() + self._patience
        while True:
            reply = self._exchange(hello, None)
            if isinstance(reply, Refusal) and reply.code == "rank" and time.monotonic() < give_up:
                time.sleep(_RANK_RETRY)
                continue
            if isinstance(reply, Welcome):
                if self._pulse is None:
                    interval = reply.heartbeat if hello.role == "worker" else min(reply.heartbeat, _NEWS_SECONDS)
                    self._pulse = Pulse(self.address, self._identity.hex(), interval)
                self._pulse.answer = None
                return reply
            if isinstance(reply, Refusal):
                return reply
            raise WireError(f"answer to Hello: expected Welcome, got {type(reply).__name__}")

    def ask(self, request: Request, welcome: Welcome) -> Reply:
        """The reply to a request. Raises RunOver and ServerChanged."""
        reply = self._exchange(request, welcome)
        if isinstance(reply, Refusal) and reply.code == "unknown":
            raise ServerChanged
        return reply

    def status(self) -> wire.Status:
        """How the run stands; needs no membership. Raises RunOver."""
        reply = self._exchange(wire.Watch(), None)
        if not isinstance(reply, wire.Status):
            raise WireError(f"answer to Watch: expected Status, got {type(reply).__name__}")
        return reply

    def goodbye(self, message: wire.Goodbye) -> None:
        """Send, and let the socket deliver it while it closes."""
        self._sequence += 1
        self._send(message)

    def close(self) -> None:
        """Give back the sockets and the thread."""
        if self._pulse is not None:
            self._pulse.close()
        self._socket.close(linger=_LINGER_MS)
        self._context.term()

    def _exchange(self, request: Request, welcome: Welcome | None) -> Reply:
        self._sequence += 1
        started = time.monotonic()
        again, wait = 0.0, _ASK_AGAIN
        while True:
            now = time.monotonic()
            if now >= again:
                sent = self._send(request)
                again = now + (wait if sent else _POLL_MS / 1000)
                wait = min(2 * wait, _ASK_AGAIN_MOST) if sent else wait
            reply = self._receive()
            if isinstance(reply, Stop):
                raise RunOver(reply)
            if reply is not None:
                return reply
            if welcome is not None:
                self._check_same(welcome)
            self._check_patience(started, joining=welcome is None)

    def _send(self, message: Request) -> bool:
        """False when there is no connection at the moment."""
        try:
            self._socket.send_multipart(wire.encode(message, self._sequence), zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    def _receive(self, wait_ms: int = _POLL_MS) -> Reply | None:
        """The reply to the last request, or a Stop; None when nothing has come yet."""
        while self._socket.poll(wait_ms, zmq.POLLIN):
            frames = [frame.buffer for frame in self._socket.recv_multipart(copy=False)]
            message, sequence = wire.decode(frames, self._limits)
            if isinstance(message, Stop) and sequence == 0:
                return message
            if sequence == self._sequence and isinstance(message, wire.Reply):
                return message
        return None

    def _check_same(self, welcome: Welcome) -> None:
        news = self._pulse.answer if self._pulse else None
        if news is not None and (news.session != welcome.session or not news.known):
            raise ServerChanged

    def _check_patience(self, started: float, *, joining: bool) -> None:
        heard = self._pulse.last_heard if self._pulse else 0.0
        silent = time.monotonic() - max(started, heard)
        if silent < self._patience:
            return
        if joining and self._pulse is None:
            raise AddressError(
                f"cannot reach a server at {self.address}: tried for {silent:.0f} s; {why_unreachable(self.address)}. "
                "Check that it runs, and that this is the address it printed"
            )
        raise ServerLostError(f"the server at {self.address} has been silent for {silent:.0f} s; gave up")


class Watcher:
    """Asks a server how the run stands, without ever waiting for it; needs no membership."""

    def __init__(self, address: str) -> None:
        self.last_heard = time.monotonic()
        self._asked: float | None = None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.IPV6, 1)
        self._socket.connect(address)

    def poll(self) -> wire.Status | None:
        """The newest Status that has come since the last call; None when there is none yet."""
        status = None
        while self._socket.poll(0, zmq.POLLIN):
            message, _ = wire.decode(self._socket.recv_multipart())
            self._asked = None
            if isinstance(message, wire.Status):
                status, self.last_heard = message, time.monotonic()
        now = time.monotonic()
        if self._asked is None or now - self._asked > _ASK_AGAIN:
            with contextlib.suppress(zmq.Again):
                self._socket.send_multipart(wire.encode(wire.Watch()), zmq.NOBLOCK)
                self._asked = now
        return status

    def close(self) -> None:
        """Give back the socket."""
        self._socket.close()
        self._context.term()
