"""The real server, driven by hand: gradients are a formula, the order of workers is given, every version is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from launch.supervisor import RunFailed
from psserver import Model, ParameterServer, Plan, RuleOptions, ServerOptions
from psserver.wire import Hello, Parameters, Pull, Push, Slot, Welcome
from tuner import TunerOptions, build

Vector: TypeAlias = NDArray[np.float32]
Numbers: TypeAlias = NDArray[np.float64]
_LAYOUT = "formula"


def constant(learning_rate: float, momentum: float) -> TunerOptions:
    """A tuner that applies these α and μ to every gradient."""
    return TunerOptions(target="constant", learning_rate=learning_rate, momentum=momentum, loop="open", estimator="lag")


def drive(
    start: Vector,
    gradient: Callable[[Vector], Vector],
    tuner: TunerOptions,
    order: Sequence[int] | NDArray[np.int64],
    *,
    weight_decay: float = 0.0,
    keep: NDArray[np.int64] | None = None,
) -> Vector:
    """x_0 … x_T of a `ParameterServer` to which worker order[0], order[1], … push in turn, float32 [T + 1, N].

    start:    x_0, [N].   gradient: x [N] -> ∇f(x) [N], computed at the version the worker was last given.
    order:    worker of each push, T of them; the workers are 0 … max(order), and all pull version 0 first.
    keep:     coordinates to keep of every version, all when None.

    Raises RunFailed when a gradient is not finite.
    """
    plan = Plan(len(order), int(max(order)) + 1)
    model = Model(start, np.empty(0, dtype=np.float32), _LAYOUT)
    server = ParameterServer(
        model,
        plan,
        build(tuner, start.size, plan.updates, plan.seed),
        RuleOptions("momentum_sgd", weight_decay),
        ServerOptions(shared_memory=False),
    )
    chosen = slice(None) if keep is None else keep
    trajectory = np.empty((plan.updates + 1, start[chosen].size), dtype=np.float32)
    try:
        hands = [_Hand(server, rank) for rank in range(plan.workers)]
        trajectory[0] = start[chosen]
        for update, rank in enumerate(order, start=1):
            hands[rank].push(gradient)
            if server.version != update:
                raise RunFailed(f"diverged: the gradient of update {update} is not finite")
            trajectory[update] = server.trajectory.current.values[chosen]
    finally:
        server.close()
    return trajectory


class _Hand:
    """One worker: what it was given last, and its next push."""

    def __init__(self, server: ParameterServer, rank: int) -> None:
        self._server, self._key, self._step = server, f"worker-{rank}", 0
        hello = Hello("worker", _LAYOUT, server.size, 0, rank, "formula", "", 0, False)
        welcome = server.handle(self._key, hello)
        if not isinstance(welcome, Welcome):
            raise RunFailed(f"{self._key}: expected Welcome, got {welcome}")
        self._session = welcome.session
        self._version, self._values = self._given(server.handle(self._key, Pull()))

    def push(self, gradient: Callable[[Vector], Vector]) -> None:
        """Compute at the version given, push, take the next one."""
        self._step += 1
        push = Push(self._session, self._step, self._version, 0.0, gradient(self._values), None)
        reply = self._server.handle(self._key, push)
        if isinstance(reply, Parameters):
            self._version, self._values = self._given(reply)

    def _given(self, reply: object) -> tuple[int, Vector]:
        if not isinstance(reply, Parameters) or isinstance(reply.values, Slot):
            raise RunFailed(f"{self._key}: expected Parameters, got {reply}")
        return reply.version, reply.values
