"""What is worth telling: counts, means and events in one place, to the record and to whoever watches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from psserver.members import Member
from psserver.messages import Status
from psserver.metrics import Arrival, Record
from psserver.progress import Progress, UpdateRow
from psserver.update import Update
from tuner.both import LOWEST_MOMENTUM

_log = logging.getLogger("psserver")
_CLAMPS = {
    "low": f"less momentum than it may apply (tuner.momentum_min, and {LOWEST_MOMENTUM} with the loop both)",
    "high": "more momentum than it may apply (tuner.momentum_max)",
}
_LONGEST_SHOWN = 500  # characters of an event in a Status, which forty of them share


class Journal:
    """Keeps a run's `Progress` and passes every row and event on to its `Record`."""

    def __init__(self, record: Record, clock: Callable[[], float]) -> None:
        self.progress = Progress()
        self._record = record
        self._clock = clock
        self._start = clock()

    @property
    def seconds(self) -> float:
        """Seconds since the run started, over all lives of its server."""
        return self._clock() - self._start

    def continue_from(self, seconds: float) -> None:
        """Go on with the time of an earlier life."""
        self._start = self._clock() - seconds

    def update(self, update: Update, computed_at: int, loss: float, arrivals: Sequence[Arrival]) -> None:
        """One update was made, of these pushes."""
        chosen = update.settings
        row = UpdateRow(
            update=update.version,
            seconds=self.seconds,
            worker=arrivals[0].worker if len(arrivals) == 1 else None,
            version=computed_at,
            staleness=update.version - 1 - computed_at,
            loss=loss,
            gradient_norm=chosen.gradient_norm,
            learning_rate=chosen.learning_rate,
            momentum=chosen.momentum,
            target_momentum=chosen.target_momentum,
            total_momentum=update.total_momentum,
            pull=None if chosen.pull is None else chosen.pull.part,
            beside=dict(update.beside),
        )
        self.progress.applied += len(arrivals)
        self.progress.update(row)
        self._record.update(row, arrivals)
        if update.clamped is not None and self.progress.clamp(update.clamped) == 1:
            self.event("clamped", None, f"update {update.version}: the loop asks for {_CLAMPS[update.clamped]}")

    def refuse(self, update: int, version: int, arrival: Arrival, code: str) -> None:
        """A push computed at `version` was refused when `update` was the newest version."""
        self.progress.reject()
        self._record.refused(update, version, arrival, code)

    def evaluation(self, version: int, values: dict[str, float], newest: int) -> None:
        """An evaluator found these numbers for a version; one beyond `newest` was lost with the server that made it."""
        if version > newest:
            self.event("evaluated", None, f"evaluation of update {version} dropped: the newest one is {newest}")
            return
        self.progress.evaluate(version, values)
        self._record.evaluation(version, self.seconds, values)
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.event("evaluated", None, f"evaluated update {version}: {text}")

    def event(self, kind: str, member: Member | None, text: str) -> None:
        """Something a user wants to know."""
        seconds = self.seconds
        self.progress.events.append(f"{seconds:.1f}s {text:.{_LONGEST_SHOWN}}")
        worker = member.number if member is not None and member.role == "worker" else None
        self._record.event(seconds, kind, worker, text)
        _log.info("%.1fs %s", seconds, text)

    def status(self, phase: Any, version: int, updates: int, members: Iterable[Member]) -> Status:
        """How the run stands."""
        progress, now = self.progress, self._clock()
        last = progress.last
        mean, p95 = progress.staleness()
        return Status(
            phase=phase,
            version=version,
            updates=updates,
            seconds=max(self.seconds, 0.0),
            loss=progress.loss,
            learning_rate=last.learning_rate if last else None,
            momentum=last.momentum if last else None,
            target_momentum=last.target_momentum if last else None,
            total_momentum=progress.total_momentum,
            staleness_mean=mean,
            staleness_p95=p95,
            rate=progress.rate(self.seconds),
            applied=progress.applied,
            rejected=progress.rejected,
            repeated=progress.repeated,
            lost=progress.lost,
            evaluation=progress.evaluation,
            evaluated_at=progress.evaluated_at,
            members=tuple(member.status(now) for member in members),
            events=tuple(progress.events),
        )

    def summary(self, reason: tuple[str, str], version: int, workers: int) -> dict[str, Any]:
        """Write summary.json and return what it holds."""
        values = {
            "updates": version,
            "seconds": self.seconds,
            "workers": workers,
            "reason": reason[0],
            "reason_text": reason[1],
            **self.progress.summary(),
        }
        self._record.summary(values)
        return values

    def flush(self) -> None:
        """Let readers of the record see everything so far."""
        self._record.flush()

    def close(self) -> None:
        """Close the record."""
        self._record.close()

    def state_dict(self) -> dict[str, Any]:
        """Counts and time, for a checkpoint."""
        return {"seconds": self.seconds, "progress": self.progress.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue counts and time."""
        self.continue_from(state["seconds"])
        self.progress.load_state_dict(state["progress"])
