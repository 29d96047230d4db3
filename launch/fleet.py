"""Virtual workers: they hold versions, compute gradients in one process, and come and leave as real ones do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from launch.arrivals import Arrivals, Turn
from launch.order import Presence
from psserver import ParameterServer
from psserver.errors import ConfigurationError, RefusedError
from psserver.wire import Goodbye, Hello, Parameters, Pull, Push, Refusal, Reply, Slot, Stop, Welcome
from worker import Gradient
from worker.curvature import due


class VirtualWorker:
    """A worker without a process: holds a version, and computes its gradient there when it is its turn to push.

    given:   the version it computes at, None while it waits for one.
    started: called whenever it is given one.
    """

    def __init__(self, key: str, server: ParameterServer, hello: Hello, started: Callable[[], None]) -> None:
        self.key = key
        welcome = server.handle(key, hello)
        if not isinstance(welcome, Welcome):
            raise RefusedError(f"simulate: expected Welcome, got {welcome}")
        self.welcome = welcome
        self.given: Parameters | None = None
        self._server, self._started = server, started
        self._step = welcome.step

    def leave(self) -> None:
        """Say goodbye; what was being computed is lost."""
        self.given = None
        self._server.handle(self.key, Goodbye("done", "", self._step))

    def pull(self) -> None:
        """Ask for the newest version, unless this is the one held; it may come later."""
        if self.given is None or self.given.version != self._server.version:
            self.given = None
            self.take(self._server.handle(self.key, Pull()))

    def take(self, reply: Reply | None) -> None:
        """What the server answers, now or later."""
        if isinstance(reply, Refusal):
            self.pull()
        elif isinstance(reply, Parameters):
            self.given = reply
            self._started()
        elif reply is not None and not isinstance(reply, Stop):
            raise RefusedError(f"simulate: expected Parameters, got {reply}")

    def push(self, gradient: Gradient, out: torch.Tensor, step: int | None) -> None:
        """Compute at the version held, and push; `step` None is the next one."""
        given = self.given
        if given is None or isinstance(given.values, Slot):
            return
        self._step = self._step + 1 if step is None else step
        self.given = None
        loss, _ = gradient.compute(given.values, out, self._step)
        every = self.welcome.buffers_every
        report = self._step % every == 1 % every and gradient.layout.buffer_size > 0
        buffers = gradient.buffers() if report else None
        session, fresh = self.welcome.session, gradient.restarted
        rank, welcome = self.welcome.worker, self.welcome
        curvature = gradient.curvature() if due(self._step, rank, welcome.curvature_every) else None
        distance = gradient.distance() if due(self._step, rank, welcome.distance_every) else None
        push = Push(session, self._step, given.version, loss, out.numpy(), buffers, fresh, curvature, distance)
        self.take(self._server.handle(self.key, push))


class Fleet:
    """The virtual workers, and one place where their gradients are computed, one after another.

    gradients: of every worker that is there at any time.   presence: who is there when, all from the start by default.
    """

    def __init__(
        self,
        server: ParameterServer,
        gradients: list[Gradient],
        arrivals: Arrivals,
        presence: Presence | None = None,
    ) -> None:
        layout = gradients[0].layout
        self.hello = Hello("worker", layout.digest, layout.size, layout.buffer_size, None, "simulated", "", 0, False)
        self._server = server
        self._gradients = gradients
        # A synchronous round keeps every worker's gradient until it closes; else one buffer serves them in turn.
        buffers = len(gradients) if server.options.mode == "synchronous" else 1
        self._outs = [torch.empty(layout.size) for _ in range(buffers)]
        self._arrivals = arrivals
        self._presence = presence or Presence(len(gradients), len(gradients), None)
        self._workers: dict[int, VirtualWorker] = {}
        self._held_back: set[int] = set()
        self._settle(self._presence.at(0))

    def change(self, version: int) -> None:
        """Let workers come and leave, if this is the version at which they do."""
        count = self._presence.at(version)
        if count != len(self._workers):
            self._settle(count)

    def take(self, turn: Turn) -> None:
        """Let workers pull, and the one whose turn it is push."""
        for rank in turn.pulls:
            self._workers[rank].pull()
            self._deliver(rank)
        rank = turn.worker
        worker, given = self._workers[rank], self._workers[rank].given
        if turn.version is not None and (given is None or given.version != turn.version):
            raise ConfigurationError(
                f"simulate.trace: expected worker {rank} to be at version {turn.version}, got "
                f"{'nothing' if given is None else given.version}; is server.max_staleness that of the recorded run?"
            )
        worker.push(self._gradients[rank], self._outs[rank % len(self._outs)], turn.step)
        self._deliver(rank)

    def _settle(self, count: int) -> None:
        """Make the workers those of the first `count` ranks: others say goodbye, new ones say hello and pull."""
        for rank in reversed(range(count, len(self._workers))):
            self._workers.pop(rank).leave()
            self._arrivals.left(rank)
            self._held_back.discard(rank)
            self._release()
        coming = range(len(self._workers), count)
        self._workers |= {rank: self._worker(rank) for rank in coming}
        for rank in coming:
            self._workers[rank].pull()
            self._deliver(rank)

    def _worker(self, rank: int) -> VirtualWorker:
        hello = dataclasses.replace(self.hello, rank=rank)
        return VirtualWorker(f"worker-{rank}", self._server, hello, lambda: self._arrivals.started(rank))

    def _deliver(self, asked: int) -> None:
        """Hand out the replies that were held back (bounded staleness, synchronous rounds), if there are any."""
        (self._held_back.add if self._workers[asked].given is None else self._held_back.discard)(asked)
        self._release()

    def _release(self) -> None:
        for key, reply in self._server.released() if self._held_back else ():
            rank = int(key.removeprefix("worker-"))
            self._held_back.discard(rank)
            self._workers[rank].take(reply)
