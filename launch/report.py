"""Writes a report: one HTML page of a run, or of several beside each other, and the same curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomlkit

from launch import page
from launch.figures import COLOURS, PANELS, panel_svg, sheet_png
from launch.history import History, load_histories
from launch.numbers import NOTHING, duration, harmless, shown
from psserver.errors import ConfigurationError

_SHOWN_EVENTS = 500
_WORDS = {
    "loss": "Training loss over updates",
    "momentum": "Target, total and algorithmic momentum over updates",
    "learning-rate": "Learning rate over updates",
    "staleness": "Histogram of staleness",
    "evaluation": "Evaluation over updates",
    "loss-in-time": "Training loss over seconds",
}


def report(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page, and a PNG of the same name beside it; the page's path.

    out: default `report.html` in the first run's folder. Raises ConfigurationError for a folder that holds no run.
    """
    if not run_dirs:
        raise ConfigurationError("expected at least one run's folder, got none")
    runs = load_histories(run_dirs)
    target = (run_dirs[0] / "report.html") if out is None else out
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".png").write_bytes(sheet_png(runs))
    target.write_text(_document(runs), encoding="utf-8")
    return target


def _document(runs: Sequence[History]) -> str:
    if len(runs) == 1:
        run = runs[0]
        title, parts = run.name, [page.numbers(summary_shown(run)), *_run(run)]
        return page.page(title, _subtitle(run), parts)
    parts = [_comparison_table(runs), page.heading("Curves"), _pictures(runs)]
    different = differences(runs)
    parts.append(page.heading("What differs in their configurations"))
    rows = [[key, *values] for key, values in different.items()] or [["nothing", *[""] * len(runs)]]
    parts.append(page.table(["key", *[run.name for run in runs]], rows))
    for run in runs:
        body = page.numbers(summary_shown(run)) + "".join(_run(run))
        parts.append(page.folded(run.name, body))
    return page.page(f"{len(runs)} runs", ", ".join(run.name for run in runs), parts)


def _subtitle(run: History) -> str:
    task = run.configuration.get("task", {}).get("function", "")
    state = "" if run.finished else "   ·   unfinished: this is what it has written so far"
    name = run.configuration.get("name", "")
    return "   ·   ".join(str(part) for part in (name, task, run.path) if part) + state


def _run(run: History) -> list[str]:
    parts = [page.heading("Curves"), _pictures([run])]
    if run.events:
        parts.append(page.folded(f"Events ({len(run.events)})", _events(run)))
    parts.append(page.folded("Configuration", page.preformatted(tomlkit.dumps(run.configuration))))
    return parts


def _pictures(runs: Sequence[History]) -> str:
    return page.figures({_WORDS[name]: panel_svg(panel, runs) for name, panel in PANELS.items()})


def _events(run: History) -> str:
    rows = [
        [f"{event.get('seconds', 0):.1f} s", str(event.get("kind", "")), harmless(str(event.get("text", "")))]
        for event in run.events[:_SHOWN_EVENTS]
    ]
    more = len(run.events) - _SHOWN_EVENTS
    if more > 0:
        rows.append(["", "", f"and {more} more in events.jsonl"])
    return page.table(["time", "kind", "what"], rows)


def summary_shown(run: History) -> dict[str, str]:
    """The run's numbers as people read them; what is not known is left out."""
    have = run.summary
    seconds, updates = have.get("seconds"), have.get("updates")
    best_name = have.get("best_eval_name") or next(iter(run.evaluated), "evaluation")
    known: dict[str, Any] = {
        "updates": f"{updates:,}" if isinstance(updates, int) else None,
        "time": duration(seconds) if isinstance(seconds, int | float) else None,
        "updates/s": shown(updates / seconds, 3) if isinstance(updates, int) and seconds else None,
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


def _number(have: dict[str, Any], name: str, digits: int = 4) -> str | None:
    value = have.get(name)
    return shown(value, digits) if isinstance(value, int | float) else None


def _comparison_table(runs: Sequence[History]) -> str:
    summaries = [summary_shown(run) for run in runs]
    names = list({name: None for summary in summaries for name in summary})
    rows = [[run.name, *[s.get(name, NOTHING) for name in names]] for run, s in zip(runs, summaries, strict=True)]
    return page.table(["run", *names], rows, [COLOURS[index % len(COLOURS)] for index in range(len(runs))])


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
