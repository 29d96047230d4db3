"""A small server without sockets, and members that talk to it directly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from psserver import Model, ParameterServer, Plan, RuleOptions, ServerOptions
from psserver.metrics import Arrival
from psserver.progress import UpdateRow
from psserver.wire import Hello, Parameters, Pull, Push, Reply, Welcome
from tuner import TunerOptions, build

SIZE = 6


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Talker:
    """A worker's side of the conversation, message by message."""

    def __init__(self, server: ParameterServer, key: str, rank: int | None = None, **changes: Any) -> None:
        self.server, self.key = server, key
        hello: dict[str, Any] = {
            "role": "worker",
            "layout": "L",
            "size": SIZE,
            "buffer_size": 2,
            "rank": rank,
            "host": "h",
            "place": "elsewhere",
            "pid": 1,
            "shared_memory": False,
        }
        reply = server.handle(key, Hello(**{**hello, **changes}))
        self.reply: Reply | None = reply
        self.step = reply.step if isinstance(reply, Welcome) else 0
        self.given: Parameters | None = None

    def take(self, reply: Reply | None) -> Reply | None:
        self.reply = reply
        if isinstance(reply, Parameters):
            self.given = reply
        return reply

    def pull(self) -> Reply | None:
        return self.take(self.server.handle(self.key, Pull()))

    def push(self, gradient: Any = 1.0, loss: float = 1.0, **changes: Any) -> Reply | None:
        self.step = changes.pop("step", self.step + 1)
        version = self.given.version if self.given else 0
        values = np.full(SIZE, gradient, np.float32) if np.isscalar(gradient) else np.asarray(gradient, np.float32)
        plain: dict[str, Any] = {"session": self.server.session, "version": version, "buffers": None}
        push = Push(**{**plain, "step": self.step, "loss": loss, "gradient": values, **changes})
        return self.take(self.server.handle(self.key, push))

    def collect(self, released: list[tuple[str, Reply]]) -> Reply | None:
        """Take what was released for this connection."""
        found = dict(released).get(self.key)
        return self.take(found) if found is not None else None


class Rows:
    """A record in memory."""

    def __init__(self) -> None:
        self.rows: list[UpdateRow] = []
        self.arrivals: list[Sequence[Arrival]] = []
        self.refusals: list[tuple[int, int, Arrival, str]] = []
        self.events: list[tuple[str, int | None, str]] = []
        self.evaluations: list[tuple[int, dict[str, float]]] = []
        self.summaries: list[dict[str, Any]] = []

    def update(self, row: UpdateRow, arrivals: Sequence[Arrival]) -> None:
        self.rows.append(row)
        self.arrivals.append(arrivals)

    def refused(self, update: int, version: int, arrival: Arrival, code: str) -> None:
        self.refusals.append((update, version, arrival, code))

    def evaluation(self, update: int, seconds: float, values: dict[str, float]) -> None:
        self.evaluations.append((update, values))

    def event(self, seconds: float, kind: str, worker: int | None, text: str) -> None:
        self.events.append((kind, worker, text))

    def summary(self, values: dict[str, Any]) -> None:
        self.summaries.append(values)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


ServerFactory = Callable[..., ParameterServer]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def make_server(clock: Clock, rows: Rows) -> Iterator[ServerFactory]:
    made = []

    def make(
        updates: int = 100,
        workers: int = 2,
        rule: RuleOptions | None = None,
        learning_rate: float = 0.125,
        momentum: float = 0.5,
        resume: dict[str, Any] | None = None,
        tuner: TunerOptions | None = None,
        **options: Any,
    ) -> ParameterServer:
        constant = TunerOptions(
            target="constant", learning_rate=learning_rate, momentum=momentum, loop="open", sample=0
        )
        server = ParameterServer(
            Model(np.arange(SIZE, dtype=np.float32), np.zeros(2, np.float32), "L"),
            Plan(updates, workers, 7),
            build(tuner or constant, SIZE, updates, 7),
            rule or RuleOptions("momentum_sgd"),
            ServerOptions(**{"shared_memory": False, **options}),
            rows,
            clock,
            resume,
        )
        made.append(server)
        return server

    yield make
    for server in made:
        server.close()
