"""`reproduce async-cifar100-long`: Adam tuned on one worker, tuned with sixteen, and the default, in longer runs."""

from __future__ import annotations

import dataclasses

from launch.experiment import Experiment
from launch.lab.asynchronous import CLAIM, WORKERS
from launch.lab.comparison import SEEDS, Arena, Entry, all_agree, counted, race
from launch.lab.contenders import BETAS, DEFAULT, Contender, Settings, adam
from launch.lab.finding import Finding, Lab, Reproduction, Scale, Table
from launch.lab.halving import Rung, halve, lengths
from launch.lab.picture import panels
from launch.lab.scoreboard import COLUMNS, curves, draw, edges, limits, protocol, ratio, runs, score, tried
from launch.lab.workloads import long_workload

ALONE, HERE, OPEN = "Adam, tuned on one worker", "Adam, tuned with sixteen", "default, loop open"
_RUNGS = (Rung(0.25, 1.0, 1), Rung(1.0, 0.25, 4))
_QUESTION = (
    "With sixteen asynchronous workers on CIFAR-100 and longer runs, what does it cost to tune Adam on one worker, and "
    "does the default need no tuning?"
)


def run(lab: Lab) -> Finding:
    """Tune Adam on one worker and with sixteen; race both, the default, and the default with the loop open."""
    one, many = _arenas(lab.scale)
    alone, here = (dataclasses.replace(adam(BETAS, lab.scale), label=label) for label in (ALONE, HERE))
    untuned = (Contender(DEFAULT, {}), Contender(OPEN, {"tuner.loop": "open"}))
    tuned = halve(lab, [(one, alone, _RUNGS), (many, here, _RUNGS), *((many, each, ()) for each in untuned)])
    entries = race(lab, many, tuned)
    figure = panels(1, 1, (7.0, 4.8))
    draw(figure[0], "Sixteen workers, in turn", entries, limits(entries.values()))
    over = entries[ALONE]
    return Finding(
        name="async-cifar100-long",
        title="CIFAR-100, sixteen asynchronous workers, longer runs",
        question=_QUESTION,
        agrees=all_agree([*entries[DEFAULT].speedups(over), *entries[DEFAULT].speedups(entries[OPEN])]),
        sentence=_sentence(entries),
        table=Table(list(COLUMNS), [score(entry, over) for entry in entries.values()]),
        data={
            "runs": runs([*entries.values()], over),
            "grid": tried([*entries.values()]),
            "curves": curves(entries),
        },
        figure=figure[0].get_figure(root=True),
        notes=[
            f"{WORKERS} simulated workers in turn, so that staleness is {WORKERS - 1}. {protocol(many.workload)}",
            "All of Adam's settings run for a quarter of the updates, the best four of them for all. Speedups are over "
            "Adam tuned on one worker.",
            "It agrees where the default is faster than Adam tuned on one worker and than itself with the loop open in "
            "every seed, by however much; the article's factor is not part of that.",
            *edges([entries[ALONE], entries[HERE]]),
        ],
    )


def _sentence(entries: dict[str, Entry]) -> str:
    default, alone, here = (entries[label] for label in (DEFAULT, ALONE, HERE))
    return (
        f"The default, with nothing tuned, has a speedup of {ratio(default.speedups(alone))} over Adam tuned on one "
        f"worker ({_setting(alone)}), of {ratio(default.speedups(here))} over Adam tuned with sixteen "
        f"({_setting(here)}) and of {ratio(default.speedups(entries[OPEN]))} over itself with the loop open. Adam "
        f"tuned with sixteen has one of {ratio(here.speedups(alone))} over Adam tuned on one, which is what there is "
        f"to gain by a better choice of constants; the article claims up to {CLAIM} for its loop."
    )


def _setting(entry: Entry) -> str:
    return entry.tuned.contender.words(entry.tuned.chosen)


def _arenas(scale: Scale) -> tuple[Arena, Arena]:
    task = long_workload(scale)
    return Arena(task), Arena(task, WORKERS)


def _work(scale: Scale) -> list[tuple[Experiment, int]]:
    """Tuning in both arenas, and four contenders with all seeds with sixteen workers."""
    tuned = adam(BETAS, scale)
    several = [
        (arena.experiment(tuned.settings, SEEDS[0]), updates)
        for arena in _arenas(scale)
        for updates in lengths(arena, len(tuned.candidates), _RUNGS)
    ]
    many = _arenas(scale)[1]
    settings: tuple[Settings, ...] = (tuned.settings, tuned.settings, {}, {"tuner.loop": "open"})
    return [*several, *((many.experiment(each, seed), many.workload.updates) for each in settings for seed in SEEDS)]


def _cost(scale: Scale) -> str:
    return counted(_work(scale), scale, 35)


ASYNC_CIFAR100_LONG = Reproduction(
    "async-cifar100-long", _QUESTION, run, _cost, ("cifar100",), lambda lab: _work(lab.scale)
)
