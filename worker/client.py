"""A worker's side of the conversation: NumPy in, NumPy out, so that any framework can be a worker."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from psserver import wire
from psserver.errors import LayoutError, RefusedError, ServerLostError, SharedMemoryError
from psserver.wire import Parameters, Refusal, Segment, Slot
from worker.connection import Connection, RunOver, ServerChanged

__all__ = ["ParameterClient", "RunOver", "Snapshot"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Snapshot:
    """A version of the parameters. `parameters` may lie in shared memory: it is for reading only.

    The server keeps the memory as it is until this client's next message. Should it have given this client up in
    between, `intact` turns false, and what was computed from the parameters is to be thrown away.
    """

    version: int
    parameters: Array
    buffers: Array | None
    final: bool
    segment: Segment | None = None

    @property
    def intact(self) -> bool:
        """The memory still holds this version."""
        return self.segment is None or self.segment.version == self.version


class ParameterClient:
    """Pushes gradients to a server and gets parameters back; survives a server that goes away and returns.

    address:  tcp://HOST:PORT or ipc://PATH.
    size, buffer_size: numbers of float32 parameters and buffer values.
    layout:   digest of the model's layout; "" leaves the server to check the sizes only.
    rank:     the worker number wanted; None takes the lowest that is free.
    patience: seconds to keep trying a server that does not answer; then AddressError (never reached) or
              ServerLostError (lost on the way).

    One thread uses a client. A request whose answer is lost is asked again: a push carries its step, so the server
    applies it once however often it comes. `RunOver` ends the conversation. With `with`, joins and leaves.
    """

    def __init__(
        self,
        address: str,
        size: int,
        *,
        buffer_size: int = 0,
        layout: str = "",
        rank: int | None = None,
        role: Literal["worker", "evaluator"] = "worker",
        patience: float = 60.0,
    ) -> None:
        self.size = size
        self.pushes = 0
        self.rejected = 0
        self._hello = wire.Hello(
            role=role,
            layout=layout,
            size=size,
            buffer_size=buffer_size,
            rank=rank,
            host=platform.node()[:200],
            place=wire.here(),
            pid=os.getpid(),
            shared_memory=True,
        )
        self._connection = Connection(address, wire.Limits(size, buffer_size), patience)
        self._versions: dict[str, Segment] = {}
        self._gradient_segment: Segment | None = None
        self._gradient: Array = np.zeros(0, dtype=np.float32)
        self._welcome: wire.Welcome | None = None
        self._step = 0

    def __enter__(self) -> ParameterClient:
        """Join the run."""
        try:
            self.join()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the run, and say why."""
        try:
            if kind is None or issubclass(kind, RunOver):
                self.leave("done")
            elif issubclass(kind, KeyboardInterrupt | SystemExit):
                self.leave("interrupted")
            elif not issubclass(kind, ServerLostError):
                self.leave("failed", f"{kind.__name__}: {error}")
        finally:
            self.close()

    @property
    def welcome(self) -> wire.Welcome:
        """What the server said at the door: worker number, workers, seed, step to go on from."""
        if self._welcome is None:
            raise RuntimeError("the client has not joined yet; use it in a `with` statement or call join()")
        return self._welcome

    @property
    def step(self) -> int:
        """The last step that was pushed; the next gradient is for step + 1."""
        return self._step

    @property
    def gradient(self) -> Array:
        """Where to compute the next gradient, float32 [N]: a shared-memory slot on the server's host."""
        return self._gradient

    def news(self) -> wire.Alive | None:
        """What the server last said of itself, if it has: its newest version, and whether it is final.

        Never waits for the server, unless that has come back and must be joined again. Raises RunOver and
        ServerLostError.
        """
        try:
            return self._connection.news(self.welcome)
        except ServerChanged:
            self.join()
            return None

    def join(self) -> wire.Welcome:
        """Say hello. Errors: AddressError, LayoutError (another model), RefusedError (the rank is taken)."""
        reply = self._connection.hello(self._hello)
        if isinstance(reply, Refusal):
            raise LayoutError(reply.text) if reply.code == "layout" else RefusedError(reply.text)
        try:
            self._take_gradient_slot(reply)
        except SharedMemoryError:
            self._hello = replace(self._hello, shared_memory=False)
            return self.join()
        self._versions.clear()
        self._step = max(self._step, reply.step)
        self._welcome = reply
        self._hello = replace(self._hello, rank=reply.worker) if self._hello.role == "worker" else self._hello
        return reply

    def pull(self) -> Snapshot:
        """The newest parameters, with the averaged buffers. Raises RunOver."""
        return self._snapshot(self._ask(wire.Pull()))

    def push(
        self,
        snapshot: Snapshot,
        loss: float,
        gradient: Array | None = None,
        buffers: Array | None = None,
        fresh: bool = False,
        curvature: wire.Curvature | None = None,
        distance: float | None = None,
    ) -> Snapshot:
        """Push the gradient (float32 [N], default: `self.gradient`) computed at `snapshot`; the newest parameters.

        fresh: it started from a fresh recurrent state; the run's record of arrivals says so.
        curvature: largest magnitude of an eigenvalue, and mean of the diagonal, of the Hessian of the same loss; wanted
               where `welcome.curvature_every` is not 0.
        distance: length, above 0, at which the same loss is least along −gradient; wanted where
               `welcome.distance_every` is not 0.

        A gradient that is refused (not finite, too stale, from a lost life of the server) is counted in
        `rejected`, and the newest parameters are pulled. One of a snapshot that is no longer intact is not sent, nor
        counted. Raises RunOver, LayoutError for another shape, RefusedError when a repetition would be refused too.
        """
        gradient = self._gradient if gradient is None else self._fitting("gradient", gradient, self.size)
        buffers = None if buffers is None else self._fitting("buffers", buffers, self._hello.buffer_size)
        if not snapshot.intact:
            return self.pull()
        if gradient is not self._gradient:
            self._gradient[:] = gradient
        self._step += 1
        self.pushes += 1
        session = self.welcome.session
        while True:
            push = wire.Push(
                session, self._step, snapshot.version, float(loss), self._payload(), buffers, fresh, curvature, distance
            )
            try:
                reply = self._connection.ask(push, self.welcome)
            except ServerChanged:
                self.join()
                continue
            if not isinstance(reply, Refusal):
                return self._snapshot(reply)
            if reply.code not in ("stale", "not-finite"):
                raise RefusedError(reply.text)
            self.rejected += 1
            return self.pull()

    def report(self, version: int, values: dict[str, float]) -> None:
        """Tell what was found for a version (evaluators)."""
        self._ask(wire.Report(version, values))

    def leave(self, reason: Literal["done", "interrupted", "failed"], text: str = "") -> None:
        """Say goodbye, without insisting on an answer."""
        if self._welcome is not None:
            self._connection.goodbye(wire.Goodbye(reason, text[:20_000], self.pushes))

    def close(self) -> None:
        """Give back the socket, the thread and the shared memory."""
        self._connection.close()
        self._versions.clear()
        self._gradient_segment = None
        self._gradient = np.zeros(0, dtype=np.float32)

    def _ask(self, request: wire.Request) -> wire.Reply:
        while True:
            try:
                reply = self._connection.ask(request, self.welcome)
            except ServerChanged:
                self.join()
                continue
            if isinstance(reply, Refusal):
                raise RefusedError(reply.text)
            return reply

    def _payload(self) -> wire.Vector:
        segment = self._gradient_segment
        return self._gradient if segment is None else Slot(segment.path.name)

    def _take_gradient_slot(self, welcome: wire.Welcome) -> None:
        """Compute into the slot given; a gradient that waits to be pushed moves along."""
        waiting = self._gradient
        if welcome.gradient is None:
            self._gradient_segment = None
            self._gradient = np.zeros(self.size if self._hello.role == "worker" else 0, dtype=np.float32)
        else:
            path = Path(welcome.directory) / welcome.gradient.name
            self._gradient_segment = Segment.attach(path, self.size, writable=True)
            self._gradient = self._gradient_segment.values
        if waiting.size and self._gradient.size:
            self._gradient[:] = waiting

    def _snapshot(self, reply: wire.Reply) -> Snapshot:
        if not isinstance(reply, Parameters):
            raise RefusedError(f"expected Parameters, got {type(reply).__name__}")
        buffers = None if isinstance(reply.buffers, Slot) else reply.buffers
        if not isinstance(reply.values, Slot):
            return Snapshot(reply.version, reply.values, buffers, reply.final)
        try:
            segment = self._version_segment(reply.values.name)
        except SharedMemoryError:
            self._hello = replace(self._hello, shared_memory=False)
            self.join()
            return self.pull()
        snapshot = Snapshot(reply.version, segment.values, buffers, reply.final, segment)
        return snapshot if snapshot.intact else self.pull()

    def _version_segment(self, name: str) -> Segment:
        segment = self._versions.get(name)
        if segment is None:
            self._versions = {name: known for name, known in self._versions.items() if known.path.exists()}
            segment = Segment.attach(Path(self.welcome.directory) / name, self.size, writable=False)
            self._versions[name] = segment
        return segment

    @staticmethod
    def _fitting(name: str, values: Array, size: int) -> Array:
        """The values as the wire takes them; anything that would have to be broadcast is a mistake."""
        array = np.ascontiguousarray(values, dtype=np.float32)
        if array.shape != (size,):
            raise LayoutError(f"{name}: expected shape ({size},), got {array.shape}")
        return array
