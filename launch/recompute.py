"""Makes a recorded run's updates again, one after another, from its experiment and its arrivals alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from launch.build import initial_model, make_task, make_tuner
from launch.experiment import Experiment
from launch.process import worker_threads
from launch.trace import ArrivalRow
from psserver.gate import Contribution, all_finite, mean_curvature, mean_distance, mean_gradient
from psserver.metrics import Arrival
from psserver.rules import Rule, make_rule
from psserver.trajectory import Trajectory
from psserver.update import Update, Updater
from tuner import NonFiniteGradient
from worker import Gradient, Shard
from worker.model import pick_device


@dataclass(frozen=True)
class Computed:
    """A gradient made again: loss and gradient (float32 [N], valid until the next round) of a recorded step."""

    row: ArrivalRow
    loss: float
    gradient: Tensor

    @property
    def finite(self) -> bool:
        """The server would take it."""
        return math.isfinite(self.loss) and all_finite(self.gradient)


class Recomputation:
    """A server without members: the trajectory of a run, and the gradients of its workers.

    rows: all that may be asked for; a version is kept until the last of them that needs it.

    Exact on the same hardware with the same libraries: batches, random numbers and the order of every sum follow from
    the experiment and the arrivals. Not recorded, and therefore taken as they are at the start: buffers that a worker
    that came later, or again, took over from the server (they matter where a forward pass in training mode reads
    them; BatchNorm's does not).
    """

    def __init__(self, experiment: Experiment, rows: Iterable[ArrivalRow]) -> None:
        train, rule = experiment.train, experiment.rule
        task = make_task(experiment)
        model, self.layout = initial_model(experiment, task)
        self.recurrent = task.state is not None
        self.notes: list[str] = []
        self.gradients = 0
        self.tuner = make_tuner(experiment, self.layout.size, self.layout)
        self.rule = self._make_rule(experiment)
        self.trajectory = Trajectory(model.parameters, version=0, slots=3, directory=None)
        self._updater = Updater(self.trajectory, self.rule, self.tuner, rule.gradient_decay)
        self.tuner.record(0, self.trajectory.current.tensor)
        self.experiment = experiment
        self._model = Gradient(task, Shard(0, train.workers, train.seed), pick_device(train.device, task))
        self._workers: dict[int, Gradient] = {}
        self._steps: dict[int, int] = {}
        self._outs: list[Tensor] = []
        self._uses = Counter(row.version for row in rows)
        self._keep()

    def _make_rule(self, experiment: Experiment) -> Rule:
        sources = experiment.server.sources(experiment.train.workers)
        return make_rule(experiment.rule, self.layout.size, sources, self.layout.tensors)

    @property
    def synchronous(self) -> bool:
        """Whether an update is the mean of a round."""
        return self.experiment.server.mode == "synchronous"

    def change(self, experiment: Experiment) -> None:
        """Go on with other settings, as a server does that is resumed with them, and the workers started with it.

        A worker whose recurrent state goes on keeps the settings it was started with.
        """
        before, self.experiment = self.experiment, experiment
        if experiment == before:
            return
        train, rule, tuner = experiment.train, self.rule.state_dict(), self.tuner.state_dict()
        self.rule = self._make_rule(experiment)
        self.rule.load_state_dict(rule)
        self.tuner = make_tuner(experiment, self.layout.size, self.layout)
        self.tuner.load_state_dict(tuner)
        self._updater = Updater(self.trajectory, self.rule, self.tuner, experiment.rule.gradient_decay)
        if _of_workers(experiment) != _of_workers(before):
            task = make_task(experiment)
            self.recurrent = task.state is not None
            self._model = Gradient(task, Shard(0, train.workers, train.seed), pick_device(train.device, task))
            if not self.recurrent:
                self._workers.clear()

    def needs(self, row: ArrivalRow) -> bool:
        """Whether the row's gradient is to be computed.

        A refused one is when it was not finite, to see how, or when it moved a worker's recurrent state on; unless it
        was computed in a life of the server that was lost, whose versions are not known.
        """
        if row.refused in (None, "not-finite"):
            return True
        server, discards = self.experiment.server, self.experiment.rule.discards_from
        stale_is_lost = not self.synchronous and server.max_staleness is None and discards is None
        lost = row.version > row.update or (row.refused == "stale" and stale_is_lost)
        return self.recurrent and not lost

    def skip(self, row: ArrivalRow) -> None:
        """The row's gradient will not be asked for."""
        self._used(row.version)

    def compute(self, rows: Sequence[ArrivalRow]) -> list[Computed]:
        """The gradients of a round (asynchronous: of one push), each at its own version."""
        while len(self._outs) < len(rows):
            self._outs.append(torch.empty(self.layout.size))
        return [self._compute(row, out) for row, out in zip(rows, self._outs, strict=False)]

    def apply(self, round_: Sequence[Computed]) -> Update | None:
        """The update of a round; None when its gradient is not finite, and then nothing has changed."""
        contributions = [
            Contribution(
                Arrival(c.row.worker, c.row.step, c.row.fresh, c.row.curvature, c.row.distance), c.loss, c.gradient
            )
            for c in round_
        ]
        torch.set_num_threads(1)  # the server's
        gradient = mean_gradient(contributions) if len(contributions) > 1 else contributions[0].gradient
        arrivals = [contribution.arrival for contribution in contributions]
        curvature, distance = mean_curvature(arrivals), mean_distance(arrivals)
        try:
            worker = 0 if self.synchronous else round_[0].row.worker
            loss = sum(c.loss for c in round_) / len(round_)
            update = self._updater.apply(gradient, round_[0].row.version, loss, curvature, worker, distance)
        except NonFiniteGradient:
            return None
        self._keep()
        return update

    def _compute(self, row: ArrivalRow, out: Tensor) -> Computed:
        worker = self._worker(row)
        torch.set_num_threads(worker_threads(self.experiment))
        loss, _ = worker.compute(self.trajectory.values(row.version), out, row.step)
        self.gradients += 1
        self._used(row.version)
        return Computed(row, loss, out)

    def _used(self, version: int) -> None:
        self._uses[version] -= 1
        if not self._uses[version] and version <= self.trajectory.version:
            self.trajectory.release(version)

    def _keep(self) -> None:
        """Hold the newest version if a gradient will be computed at it."""
        if self._uses[self.trajectory.version]:
            self.trajectory.hold(self.trajectory.version)

    def _worker(self, row: ArrivalRow) -> Gradient:
        last = self._steps.get(row.worker, 0)
        self._steps[row.worker] = row.step
        if self.recurrent and not row.fresh and row.step != last + 1:
            self.notes.append(
                f"update {row.update}, worker {row.worker}: step {row.step} goes on from step {row.step - 1}, which "
                "cannot be computed again, for it was lost with a life of the server; the worker's recurrent state is "
                "not known, and from here on nothing need be equal"
            )
        worker = self._workers.get(row.worker)
        if worker is None or row.fresh:
            train = self.experiment.train
            worker = self._model.another(Shard(row.worker, train.workers, train.seed))
            self._workers[row.worker] = worker
        return worker


def _of_workers(experiment: Experiment) -> tuple[object, ...]:
    """The settings that a worker's gradients follow from."""
    train = experiment.train
    return experiment.task, experiment.data, train.workers, train.seed, train.device
