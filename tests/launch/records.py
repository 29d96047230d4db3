"""Records of runs that were never made, to write reports of."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.experiment import load_experiment

EVENTS = ({"seconds": 1.0, "kind": "lost", "worker": 3, "text": "worker 3 lost: <b>\x1bkilled</b>"},)


def row(update: int, **changes: Any) -> dict[str, Any]:
    """A row of metrics.jsonl."""
    usual = {
        "update": update, "seconds": 0.03 * update, "worker": update % 16, "version": max(0, update - 16),
        "staleness": min(update - 1, 15), "loss": 2 * math.exp(-update / 200) + 0.1, "gradient_norm": 1.0,
        "learning_rate": 0.05, "momentum": -0.2, "target_momentum": 0.9, "total_momentum": 0.8,
    }  # fmt: skip
    return usual | changes


def arrival(update: int, refused: str | None = None) -> dict[str, Any]:
    """A row of arrivals.jsonl: the push of `row(update)`, or one refused then."""
    version = max(0, update - 16)
    return {
        "update": update,
        "worker": update % 16,
        "step": update // 16,
        "version": version,
        "fresh": False,
        "refused": refused,
    }


def write_run(folder: Path, rows: Sequence[dict[str, Any]], *settings: str, **more: Any) -> Path:
    """A run's folder; `more`: `arrivals`, `events` and `evaluations` (rows), and `finished` (default True)."""
    folder.mkdir(parents=True)
    finished = more.get("finished", True)
    load_experiment("quadratic", settings).write(folder / "experiment.toml")
    (folder / "metrics.jsonl").write_text(_lines(rows) + ("" if finished else '{"update": 9'))
    (folder / "arrivals.jsonl").write_text(_lines(more.get("arrivals", ())))
    (folder / "events.jsonl").write_text(_lines(more.get("events", EVENTS)))
    evaluations = [{"update": one, "seconds": 1.0, "loss": 1 / one, "accuracy": 0.9} for one in (100, 200)]
    (folder / "evaluations.jsonl").write_text(_lines(more.get("evaluations", evaluations)))
    if finished:
        summary = {"updates": len(rows), "seconds": 9.0, "final_train_loss": 0.1, "reason": "done"}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
