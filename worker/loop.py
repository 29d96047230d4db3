"""What a worker does, in one glance: take parameters, compute a gradient, push it, until the run is over."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from worker.client import ParameterClient, RunOver, Snapshot
from worker.curvature import due
from worker.evaluate import Evaluator
from worker.gradient import Gradient


def work(client: ParameterClient, gradient: Gradient, check: Callable[[], None] = lambda: None) -> RunOver:
    """Push one gradient after another to the server that `client` has joined; return why it ended.

    check: called before each gradient; what it raises ends the work.
    """
    buffers_every = client.welcome.buffers_every
    try:
        snapshot = client.pull()
        if snapshot.buffers is not None:
            gradient.load_buffers(snapshot.buffers)
        while True:
            check()
            step = client.step + 1
            loss, _ = gradient.compute(snapshot.parameters, torch.from_numpy(client.gradient), step)
            report = step % buffers_every == 1 % buffers_every and gradient.layout.buffer_size > 0
            buffers = gradient.buffers() if report else None
            welcome, fresh = client.welcome, gradient.restarted
            curvature = gradient.curvature() if due(step, welcome.worker, welcome.curvature_every) else None
            distance = gradient.distance() if due(step, welcome.worker, welcome.distance_every) else None
            snapshot = client.push(snapshot, loss, None, buffers, fresh, curvature, distance)
    except RunOver as over:
        return over


def watch_over(client: ParameterClient, evaluator: Evaluator, every: int, pause: float = 0.2) -> None:
    """Evaluate the newest version whenever `every` updates have passed (0: never), and the final one; report each."""
    due = every
    try:
        while True:
            news = client.news()
            if news is None or not (news.final or (every and news.version >= due)):
                time.sleep(pause)
                continue
            snapshot = client.pull()
            client.report(snapshot.version, _evaluated(evaluator, snapshot))
            if snapshot.final:
                return
            due = (snapshot.version // every + 1) * every if every else 0
    except RunOver:
        return


def _evaluated(evaluator: Evaluator, snapshot: Snapshot) -> dict[str, float]:
    return evaluator.evaluate(snapshot.parameters, snapshot.buffers)
