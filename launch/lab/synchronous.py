"""`reproduce sync-*`: tuned Adam, tuned momentum SGD and YellowFin on one worker, five workloads."""

from __future__ import annotations

from functools import partial

from launch.experiment import Experiment
from launch.lab.comparison import Arena, Entry, all_agree, counted, race, tune, work
from launch.lab.contenders import ADAM, MOMENTUM, OPEN, Contender, synchronous
from launch.lab.finding import Finding, Lab, Reproduction, Scale, Table
from launch.lab.picture import panels
from launch.lab.scoreboard import COLUMNS, curves, draw, edges, limits, protocol, ratio, runs, score, tried
from launch.lab.workloads import Name, workload

_CLAIM = 3.28
"""The article's largest speedup of YellowFin over tuned Adam with one worker."""

_ON: dict[Name, str] = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "ptb": "words of the Penn Treebank",
    "shakespeare": "characters of TinyShakespeare",
    "parsing": "parse trees as language",
}
_NEEDS: dict[Name, tuple[str, ...]] = {
    "cifar10": ("cifar10",),
    "cifar100": ("cifar100",),
    "ptb": ("ptb",),
    "shakespeare": (),
    "parsing": ("wsj",),
}


def run(name: Name, lab: Lab) -> Finding:
    """Tune, race and judge on one workload."""
    arena = _arena(name, lab.scale)
    entries = race(lab, arena, tune(lab, arena, _contenders(name, lab.scale)))
    adam, sgd, yellowfin = entries[ADAM], entries[MOMENTUM], entries[OPEN]
    gains = yellowfin.speedups(adam)
    chosen = arena.workload
    (panel,) = panels(1, size=(7.6, 4.8))
    draw(panel, _title(name), entries, limits(entries.values()))
    return Finding(
        name=f"sync-{name}",
        title=_title(name),
        question=_question(name),
        agrees=all_agree(gains),
        sentence=_sentence(yellowfin, sgd, adam),
        table=Table(list(COLUMNS), [score(entry, adam) for entry in entries.values()]),
        data={"runs": runs([*entries.values()], adam), "grid": tried([*entries.values()]), "curves": curves(entries)},
        figure=panel.get_figure(root=True),
        notes=[
            protocol(chosen),
            *edges([*entries.values()]),
        ],
    )


def _sentence(yellowfin: Entry, sgd: Entry, adam: Entry) -> str:
    gains = yellowfin.speedups(adam)
    wins = sum(gain > 1 for gain in gains)
    return (
        f"YellowFin, with nothing tuned, has a speedup of {ratio(gains)} over tuned Adam, above 1 in {wins} of "
        f"{len(gains)} seeds; tuned momentum SGD has {ratio(sgd.speedups(adam))}. The article says that YellowFin "
        f"can need fewer updates than tuned Adam, up to {_CLAIM} times fewer."
    )


def _question(name: Name) -> str:
    return f"Does YellowFin, with nothing tuned, need fewer updates than tuned Adam on {_ON[name]}, with one worker?"


def _title(name: Name) -> str:
    return f"{_ON[name][0].upper()}{_ON[name][1:]}, one worker"


def _arena(name: Name, scale: Scale) -> Arena:
    return Arena(workload(name, scale))


def _contenders(name: Name, scale: Scale) -> list[Contender]:
    return synchronous(scale, recurrent=not name.startswith("cifar"))


def _work(name: Name, lab: Lab) -> list[tuple[Experiment, int]]:
    return work(_arena(name, lab.scale), _contenders(name, lab.scale))


def _cost(name: Name, scale: Scale) -> str:
    return counted(work(_arena(name, scale), _contenders(name, scale)), scale, 2)


REPRODUCTIONS: dict[Name, Reproduction] = {
    name: Reproduction(
        f"sync-{name}", _question(name), partial(run, name), partial(_cost, name), _NEEDS[name], partial(_work, name)
    )
    for name in _ON
}
