"""`reproduce workers`: updates and seconds to a loss with 1 to 32 asynchronous workers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from matplotlib.axes import Axes

from launch.experiment import Experiment
from launch.lab.comparison import SEEDS, Arena, Entry, counted, race, tune, work
from launch.lab.contenders import CLOSED, OPEN, Contender, adam, yellowfin
from launch.lab.finding import Finding, Lab, Reproduction, Scale, Table
from launch.lab.picture import COLOURS, labelled, legend, panels, whole_ticks
from launch.lab.scoreboard import protocol, spread
from launch.lab.workloads import workload
from launch.numbers import shown

WORKERS = (1, 2, 4, 8, 16, 32)
_QUESTION = "How many updates, and how many seconds, do 1 to 32 asynchronous workers need to the same loss?"
_RETUNED, _KEPT = "Adam, tuned for each", "Adam, tuned for one"
_BETAS, _RATES = (0.0, 0.9), (1e-3, 3e-3)


def run(lab: Lab) -> Finding:
    """Race Adam and YellowFin at every number of workers."""
    arenas = {workers: Arena(workload("cifar100", lab.scale), workers) for workers in WORKERS}
    entries: dict[tuple[str, int], Entry] = {}
    kept = tune(lab, arenas[1], [_adam(_KEPT)])
    for workers, arena in arenas.items():
        tuned = [*tune(lab, arena, [_adam(_RETUNED), yellowfin("open"), yellowfin("closed")]), *kept]
        entries |= {(name, workers): entry for name, entry in race(lab, arena, tuned).items()}
    level = max(min(max(entries[name, workers].lows) for name in _NAMES) for workers in WORKERS)
    updates = {key: entry.updates([level] * len(SEEDS)) for key, entry in entries.items()}
    left, right = panels(2, 2, (11.5, 4.6))
    _draw(left, "Updates", f"updates to loss {level:.3g}", updates, seconds=False)
    _draw(right, "Seconds, a gradient taking one", f"seconds to loss {level:.3g}", updates, seconds=True)
    chosen = arenas[1].workload
    return Finding(
        name="workers",
        title="From 1 to 32 asynchronous workers",
        question=_QUESTION,
        agrees=None,
        sentence=_sentence(updates, level),
        table=_table(entries, updates),
        data={"updates": _rows(entries, updates)},
        figure=left.get_figure(root=True),
        notes=[
            f"CIFAR-100, {protocol(chosen)}",
            "Simulated workers in turn; a gradient takes a second on each, so M workers make M updates a second. The "
            f"loss to reach, {level:.4f}, is the lowest that, at every M, some method reaches with all seeds. A method "
            "has no number where a seed does not reach it.",
            f"Adam is tuned over α = {', '.join(f'{rate:g}' for rate in _RATES)} and β1 = "
            f"{', '.join(f'{beta:g}' for beta in _BETAS)}: for one worker and kept, or for each M.",
            "The article has no such figure; there is nothing to agree with.",
        ],
    )


_NAMES = (_RETUNED, _KEPT, OPEN, CLOSED)


def _adam(label: str) -> Contender:
    whole = adam(_BETAS, "small")
    some = tuple(chosen for chosen in whole.candidates if chosen["tuner.learning_rate"] in _RATES)
    return dataclasses.replace(whole, label=label, candidates=some)


def _mean(found: list[int | None]) -> float:
    """Mean updates; NaN when a seed has none."""
    return float(np.mean([math.nan if value is None else value for value in found]))


def _sentence(updates: dict[tuple[str, int], list[int | None]], level: float) -> str:
    """What the largest number of workers costs in updates and saves in seconds."""
    parts = []
    for name in _NAMES:
        reached = [workers for workers in WORKERS if math.isfinite(_mean(updates[name, workers]))]
        if not reached:
            parts.append(f"{name} never reaches it in all seeds")
            continue
        times = {workers: _mean(updates[name, workers]) / workers for workers in reached}
        best = min(times, key=lambda workers: times[workers])
        first, last = (_mean(updates[name, workers]) for workers in (reached[0], best))
        parts.append(
            f"{name}: {shown(first, 3)} updates with {reached[0]}, {shown(last, 3)} with {best}, which is the quickest "
            f"({shown(times[reached[0]] / times[best], 3)} times fewer seconds)"
        )
    return f"To a training loss of {shown(level, 3)}, {'; '.join(parts)}."


def _table(entries: dict[tuple[str, int], Entry], updates: dict[tuple[str, int], list[int | None]]) -> Table:
    columns = ["method", "workers", "setting", "updates", "seconds", "speedup in seconds", "lowest smoothed loss"]
    rows = []
    for (name, workers), entry in sorted(entries.items(), key=lambda item: (_NAMES.index(item[0][0]), item[0][1])):
        mean = _mean(updates[name, workers])
        gain = _mean(updates[name, 1]) / mean * workers
        setting = entry.tuned.contender.words(entry.tuned.chosen)
        rows.append([name, workers, setting, mean, mean / workers, gain, spread(entry.lows)])
    return Table(columns, rows)


def _rows(entries: dict[tuple[str, int], Entry], updates: dict[tuple[str, int], list[int | None]]) -> Table:
    columns = ["method", "workers", "seed", "updates", "virtual_seconds", "lowest_smoothed_loss", "real_seconds", "key"]
    rows: list[list[object]] = []
    for (name, workers), entry in entries.items():
        for seed, found, low, outcome in zip(SEEDS, updates[name, workers], entry.lows, entry.outcomes, strict=True):
            seconds = found / workers if found is not None else None
            rows.append([name, workers, seed, found, seconds, low, outcome.seconds, outcome.point.key])
    return Table(columns, rows)


def _draw(
    panel: Axes, title: str, ylabel: str, updates: dict[tuple[str, int], list[int | None]], seconds: bool
) -> None:
    labelled(panel, title, "workers", ylabel, xscale="log", yscale="log")
    for index, name in enumerate(_NAMES):
        means = [_mean(updates[name, workers]) / (workers if seconds else 1) for workers in WORKERS]
        panel.plot(WORKERS, means, "o-", color=COLOURS[index], label=name, markersize=5)
    panel.set_xticks(WORKERS, [str(workers) for workers in WORKERS])
    panel.minorticks_off()
    whole_ticks(panel.yaxis)
    legend(panel)


def _work(lab: Lab) -> list[tuple[Experiment, int]]:
    return _items(lab.scale)


def _items(scale: Scale) -> list[tuple[Experiment, int]]:
    contenders = [_adam(_RETUNED), yellowfin("open"), yellowfin("closed")]
    arenas = [Arena(workload("cifar100", scale), workers) for workers in WORKERS]
    items = [item for arena in arenas for item in work(arena, contenders)]
    kept = [
        (arena.experiment(_adam(_KEPT).settings, seed), arena.workload.updates) for arena in arenas for seed in SEEDS
    ]
    return [*items, *kept]


def _cost(scale: Scale) -> str:
    return f"{counted(_items(scale), scale, 8)}; async-cifar100 shares some of them"


WORKERS_FIGURE = Reproduction("workers", _QUESTION, run, _cost, ("cifar100",), _work)
