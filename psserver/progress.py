"""What a run amounts to so far: counts for the summary, the last hundred updates for the display."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

_WINDOW = 100
_STALENESS_WINDOW = 1000
_KEPT_EVENTS = 40


@dataclass(frozen=True)
class UpdateRow:
    """A row of metrics.jsonl: one update. None means not measured (no worker: the mean of all).

    pull:   how much of the way since `version` was taken back, in the mean over directions; None for nothing.
    beside: what further estimators of total momentum said, by name; in the file `total_momentum_NAME` for each.
    """

    update: int
    seconds: float
    worker: int | None
    version: int
    staleness: int
    loss: float
    gradient_norm: float
    learning_rate: float
    momentum: float
    target_momentum: float
    total_momentum: float | None
    pull: float | None = None
    beside: dict[str, float | None] = field(default_factory=dict)


class Progress:
    """Counts and running means. Every push ends as applied, rejected or repeated: pushed = applied + rejected."""

    def __init__(self) -> None:
        self.applied = self.rejected = self.late = self.repeated = self.lost = 0
        self.clamped_low = self.clamped_high = 0
        self.last: UpdateRow | None = None
        self.evaluation: dict[str, float] = {}
        self.evaluated_at: int | None = None
        self.best: float | None = None
        self.best_name: str | None = None
        self.events: deque[str] = deque(maxlen=_KEPT_EVENTS)
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._totals: deque[float] = deque(maxlen=_WINDOW)
        self._stalenesses: deque[int] = deque(maxlen=_STALENESS_WINDOW)
        self._seconds: deque[float] = deque(maxlen=_WINDOW)
        self._staleness_sum = 0
        self._staleness_count = 0
        self._total_sum = 0.0
        self._total_count = 0
        self._momentum_min: float | None = None

    def update(self, row: UpdateRow) -> None:
        """Take in one update."""
        self.last = row
        self._losses.append(row.loss)
        self._seconds.append(row.seconds)
        self._stalenesses.append(row.staleness)
        self._staleness_sum += row.staleness
        self._staleness_count += 1
        self._momentum_min = row.momentum if self._momentum_min is None else min(self._momentum_min, row.momentum)
        if row.total_momentum is not None:
            self._totals.append(row.total_momentum)
            self._total_sum += row.total_momentum
            self._total_count += 1

    def reject(self) -> None:
        """One push was refused."""
        self.rejected += 1

    def reject_late(self) -> None:
        """One push came after the end of the run."""
        self.rejected += 1
        self.late += 1

    def clamp(self, end: Literal["low", "high"]) -> int:
        """The loop's clamp held the momentum at this end; returns how often by now."""
        if end == "low":
            self.clamped_low += 1
            return self.clamped_low
        self.clamped_high += 1
        return self.clamped_high

    def evaluate(self, version: int, values: dict[str, float]) -> None:
        """Take in what an evaluator found; the best is the highest accuracy, else the lowest loss."""
        self.evaluation, self.evaluated_at = values, version
        name = "accuracy" if "accuracy" in values else "loss" if "loss" in values else None
        if name is None or not math.isfinite(values[name]):
            return
        better = max if name == "accuracy" else min
        self.best = values[name] if self.best is None else better(self.best, values[name])
        self.best_name = name

    @property
    def loss(self) -> float | None:
        """Mean training loss of the last hundred updates."""
        return float(np.mean(self._losses)) if self._losses else None

    @property
    def total_momentum(self) -> float | None:
        """Mean of the last hundred measurements."""
        return float(np.mean(self._totals)) if self._totals else None

    def staleness(self) -> tuple[float | None, float | None]:
        """Mean and 95th percentile over the last thousand updates."""
        if not self._stalenesses:
            return None, None
        return float(np.mean(self._stalenesses)), float(np.percentile(self._stalenesses, 95))

    def rate(self, now: float) -> float:
        """Updates a second over the last hundred, `now` in seconds of the run."""
        if len(self._seconds) < 2:
            return 0.0
        span = max(self._seconds[-1] - self._seconds[0], now - self._seconds[-1])
        return (len(self._seconds) - 1) / span if span > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        """The figures of summary.json that are counted here."""
        return {
            "final_train_loss": self.loss,
            "best_eval": self.best,
            "best_eval_name": self.best_name,
            "last_eval": self.evaluation or None,
            "last_eval_update": self.evaluated_at,
            "momentum_min": self._momentum_min,
            "momentum_final": self.last.momentum if self.last else None,
            "updates_clamped_low": self.clamped_low,
            "updates_clamped_high": self.clamped_high,
            "learning_rate_final": self.last.learning_rate if self.last else None,
            "mean_staleness": self._staleness_sum / self._staleness_count if self._staleness_count else None,
            "mean_total_momentum": self._total_sum / self._total_count if self._total_count else None,
            "pushes_received": self.applied + self.rejected,
            "pushes_applied": self.applied,
            "pushes_rejected": self.rejected,
            "pushes_rejected_after_the_end": self.late,
            "pushes_repeated": self.repeated,
            "workers_lost": self.lost,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything the summary needs, for a checkpoint."""
        plain = {name: value for name, value in vars(self).items() if name not in ("last", "events")}
        state = {name: list(value) if isinstance(value, deque) else value for name, value in plain.items()}
        state["last"] = vars(self.last) if self.last else None
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the counts."""
        for name, value in state.items():
            mine = getattr(self, name)
            if name == "last":
                self.last = UpdateRow(**value) if value else None
            elif isinstance(mine, deque):
                mine.clear()
                mine.extend(value)
            else:
                setattr(self, name, value)
