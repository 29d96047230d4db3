"""What a report says in words and numbers: summaries, what differs between configurations, events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from launch.history import History
from launch.numbers import NOTHING, duration, harmless, shown
from launch.report import page

_SHOWN_EVENTS = 500
_FEW = 4


def summary_shown(run: History) -> dict[str, str]:
    """The run's numbers as people read them; what is not known is left out."""
    have = run.summary
    seconds, updates = have.get("seconds"), have.get("updates")
    best_name = have.get("best_eval_name") or next(iter(run.evaluated), "evaluation")
    known: dict[str, Any] = {
        "updates": f"{updates:,}" if isinstance(updates, int) else None,
        "time": duration(seconds) if isinstance(seconds, int | float) else None,
        "updates/s": _rate(updates / seconds) if isinstance(updates, int) and seconds else None,
        "workers": have.get("workers"),
        "final training loss": _number(have, "final_train_loss"),
        f"best {best_name}": _number(have, "best_eval"),
        "mean staleness": _number(have, "mean_staleness", 3),
        "mean total momentum": _number(have, "mean_total_momentum", 3),
        "lowest momentum": _number(have, "momentum_min", 3),
        "final learning rate": _number(have, "learning_rate_final", 3),
        "pushes rejected": have.get("pushes_rejected"),
        "pushes repeated": have.get("pushes_repeated"),
        "workers lost": have.get("workers_lost"),
        "ended": have.get("reason"),
    }
    return {name: str(value) for name, value in known.items() if value is not None}


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else shown(value, 3)


def _number(have: dict[str, Any], name: str, digits: int = 4) -> str | None:
    value = have.get(name)
    return shown(value, digits) if isinstance(value, int | float) else None


def comparison(runs: Sequence[History]) -> str:
    """The runs' numbers beside each other: a column a run while they are few and fit a phone, else a row a run."""
    summaries = [summary_shown(run) for run in runs]
    names = list({name: None for summary in summaries for name in summary})
    if len(runs) <= _FEW:
        rows = [[name, *[summary.get(name, NOTHING) for summary in summaries]] for name in names]
        return page.table(["", *[run.name for run in runs]], rows, runs="columns")
    rows = [[run.name, *[s.get(name, NOTHING) for name in names]] for run, s in zip(runs, summaries, strict=True)]
    return page.table(["run", *names], rows, runs="rows")


def events(run: History) -> str:
    """The run's events as a table, the first few hundred of them."""
    rows = [
        [f"{_seconds(event):.1f} s", str(event.get("kind", "")), harmless(str(event.get("text", "")))]
        for event in run.events[:_SHOWN_EVENTS]
    ]
    more = len(run.events) - _SHOWN_EVENTS
    if more > 0:
        rows.append(["", "", f"and {more:,} more in events.jsonl"])
    return page.table(["time", "kind", "what"], rows, words=True)


def _seconds(event: dict[str, Any]) -> float:
    value = event.get("seconds")
    return float(value) if isinstance(value, int | float) else 0.0


def differences(runs: Sequence[History]) -> dict[str, list[str]]:
    """Key -> each run's value, for the keys of the configuration in which the runs are not all alike."""
    flat = [_flat(run.configuration) for run in runs]
    keys = list({key: None for one in flat for key in one if key != "name"})
    return {
        key: [one.get(key, NOTHING) for one in flat] for key in keys if len({one.get(key, NOTHING) for one in flat}) > 1
    }


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, str]:
    values: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            values |= _flat(value, f"{prefix}{key}.")
        else:
            values[prefix + key] = str(value)
    return values
