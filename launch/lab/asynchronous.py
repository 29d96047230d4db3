"""`reproduce async-cifar100` and `async-adam`: sixteen workers in turn, baselines tuned in both settings."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.axes import Axes

from launch.experiment import Experiment
from launch.lab.comparison import SEEDS, Arena, Entry, all_agree, counted, race, tune, work
from launch.lab.contenders import (
    ADAM,
    BETAS,
    CLOSED,
    DEFAULT,
    LAG,
    MOMENTUM,
    OPEN,
    Contender,
    adam,
    baselines,
    closed_adam,
)
from launch.lab.finding import Finding, Lab, Reproduction, Scale, Table
from launch.lab.picture import COLOURS, GREY, labelled, legend, panels
from launch.lab.scoreboard import COLUMNS, curves, draw, edges, limits, protocol, ratio, runs, score, spread, tried
from launch.lab.workloads import workload

WORKERS = 16
CLAIM = 2.69
"""The article's speedup of closed-loop YellowFin over Adam, 16 asynchronous workers, CIFAR-100."""

_QUESTION = (
    "With sixteen asynchronous workers on CIFAR-100, does YellowFin with the loop closed beat Adam and the open loop?"
)
_ADAM_QUESTION = "With sixteen asynchronous workers, does Adam want a lower β1, and does the loop find it?"
_SHOWN = (ADAM, MOMENTUM, OPEN, CLOSED, LAG, DEFAULT)
_TARGETS = (0.5, 0.9)


def run(lab: Lab) -> Finding:
    """Tune every method on one worker and on sixteen, and race both with sixteen."""
    one, many = _arenas(lab.scale)
    contenders = baselines(lab.scale)
    as_alone, as_here = tune(lab, one, contenders), tune(lab, many, contenders)
    races = {"synchronously": race(lab, many, as_alone), "asynchronously": race(lab, many, as_here)}
    kinds = races.items()
    chosen = many.workload
    rows = [[kind, *score(entry, entries[ADAM])] for kind, entries in kinds for entry in entries.values()]
    everything = {f"{name}, tuned {kind}": entry for kind, entries in kinds for name, entry in entries.items()}
    span = limits(entries[name] for entries in races.values() for name in _SHOWN)
    figure = panels(2, 2, (12.0, 4.8))
    for panel, (kind, entries) in zip(figure, kinds, strict=True):
        draw(panel, f"Sixteen workers, tuned {kind}", {name: entries[name] for name in _SHOWN}, span)
    every = [(kind, entry) for kind, entries in kinds for entry in entries.values()]
    return Finding(
        name="async-cifar100",
        title="CIFAR-100, sixteen asynchronous workers",
        question=_QUESTION,
        agrees=_judged(races["synchronously"]),
        sentence=_sentence(races["synchronously"], races["asynchronously"]),
        table=Table(["tuned", *COLUMNS], rows),
        data={
            "runs": _labelled([(kind, runs([entry], races[kind][ADAM])) for kind, entry in every]),
            "grid": _labelled([(kind, tried([entry])) for kind, entry in every]),
            "curves": curves(everything),
        },
        figure=figure[0].get_figure(root=True),
        notes=[
            f"{WORKERS} simulated workers in turn, so that staleness is {WORKERS - 1}, as in the article. "
            f"{protocol(chosen)}",
            "Tuned synchronously: the best of the grid on one worker, then run with sixteen, as the article compares. "
            "Tuned asynchronously: the best of the same grid with sixteen. Speedups are over Adam tuned the same way.",
            *[f"Tuned {kind}: {note}" for kind, entries in kinds for note in edges([*entries.values()])],
        ],
    )


def _judged(entries: dict[str, Entry]) -> bool | None:
    """Whether the closed loop is faster than Adam tuned as in the article, and than the open loop, in every seed."""
    over_adam, over_open = (entries[CLOSED].speedups(entries[name]) for name in (ADAM, OPEN))
    return all_agree([*over_adam, *over_open])


def _sentence(alone: dict[str, Entry], here: dict[str, Entry]) -> str:
    closed = alone[CLOSED]
    best = min(here.values(), key=lambda entry: float(np.mean(entry.lows)))
    return (
        f"YellowFin with the loop closed has a speedup of {ratio(closed.speedups(alone[ADAM]))} over Adam tuned on "
        f"one worker and of {ratio(closed.speedups(alone[OPEN]))} over its open loop; the article claims up to "
        f"{CLAIM} over Adam. Over Adam tuned with sixteen workers ({_setting(here[ADAM])}) it is "
        f"{ratio(closed.speedups(here[ADAM]))}. The default, with nothing tuned, has a speedup of "
        f"{ratio(alone[DEFAULT].speedups(alone[ADAM]))} over Adam tuned on one worker and of "
        f"{ratio(here[DEFAULT].speedups(here[ADAM]))} over Adam tuned with sixteen. The lowest "
        f"loss of all, {spread(best.lows)}, has {best.label} "
        f"({_setting(best)}), tuned with sixteen workers."
    )


def _setting(entry: Entry) -> str:
    return entry.tuned.contender.words(entry.tuned.chosen)


def run_adam(lab: Lab) -> Finding:
    """Tune the learning rate at every β1 and at every target of the loop; race them."""
    _, many = _arenas(lab.scale)
    entries = race(lab, many, tune(lab, many, _adams(lab.scale)))
    usual = entries[_by_hand(0.9)]
    hands = {beta: entries[_by_hand(beta)] for beta in BETAS}
    best = min(BETAS, key=lambda beta: float(np.mean(hands[beta].lows)))
    loops = [entry for entry in entries.values() if entry not in hands.values()]
    loop = min(loops, key=lambda entry: float(np.mean(entry.lows)))
    found = [all_agree(entry.speedups(usual)) for entry in (hands[best], loop)]
    left, right = panels(2, 2, (12.0, 4.8))
    shown = {entry.label: entry for entry in (usual, hands[best], *loops)}
    draw(left, "Adam, sixteen workers", shown, limits(shown.values()))
    _draw_betas(right, hands, loops)
    return Finding(
        name="async-adam",
        title="Adam's β1 with sixteen asynchronous workers",
        question=_ADAM_QUESTION,
        agrees=None if None in found else all(found),
        sentence=_adam_sentence(hands, best, loop),
        table=Table(
            ["β1 at the end", *COLUMNS], [[spread(_last_betas(e)), *score(e, usual)] for e in entries.values()]
        ),
        data={"runs": runs([*entries.values()], usual), "grid": tried([*entries.values()]), "curves": curves(entries)},
        figure=left.get_figure(root=True),
        notes=[
            f"CIFAR-100, sixteen simulated workers in turn. {protocol(many.workload)}",
            "“Adam” in speedups is β1 = 0.9 with the learning rate that is best with sixteen workers.",
            *edges([*entries.values()]),
        ],
    )


def _adam_sentence(hands: dict[float, Entry], best: float, loop: Entry) -> str:
    usual = hands[0.9]
    gain = "" if best == 0.9 else f", with a speedup of {ratio(hands[best].speedups(usual))} over 0.9"
    over = "" if best == 0.9 else f" and {ratio(loop.speedups(hands[best]))} over {best:g}"
    return (
        f"Of β1 = {', '.join(f'{beta:g}' for beta in BETAS)} set by hand, each with its best learning rate, {best:g} "
        f"comes lowest{gain}. The best of the loops, {loop.label}, drove β1 to {spread(_last_betas(loop))}, with a "
        f"speedup of {ratio(loop.speedups(usual))} over 0.9 set by hand{over}."
    ).replace(" -", " −")


def _by_hand(beta: float) -> str:
    return f"Adam, β1 {beta:g}".replace("-", "−")


def _adams(scale: Scale) -> list[Contender]:
    hands = [dataclasses.replace(adam((beta,), scale), label=_by_hand(beta)) for beta in BETAS]
    loops = [dataclasses.replace(closed_adam((mu,), scale), label=f"loop to {mu:g}") for mu in _TARGETS]
    by_lag = closed_adam(_TARGETS[-1:], scale)
    settings = {**by_lag.settings, "tuner.estimator": "lag"}
    return [*hands, *loops, dataclasses.replace(by_lag, label=f"loop to {_TARGETS[-1]:g}, by lag", settings=settings)]


def _last_betas(entry: Entry) -> list[float]:
    """β1 at the end of each run."""
    found = [outcome.summary.get("momentum_final") for outcome in entry.outcomes]
    return [float(value) for value in found if value is not None]


def _draw_betas(panel: Axes, hands: dict[float, Entry], loops: list[Entry]) -> None:
    """Lowest loss over β1, each at its best learning rate, and where the loops ended."""
    labelled(panel, "Lowest smoothed loss", "β1 (of loops: at the end)", "training loss")
    means = [float(np.mean(entry.lows)) for entry in hands.values()]
    panel.plot([*hands], means, "-", color=GREY, linewidth=1.2)
    for index, (entry, at) in enumerate(
        [(entry, beta) for beta, entry in hands.items()]
        + [(e, float(np.mean(_last_betas(e) or [np.nan]))) for e in loops]
    ):
        colour = COLOURS[0] if index < len(hands) else COLOURS[(index - len(hands) + 1) % len(COLOURS)]
        label = "by hand" if index == 0 else entry.label if index >= len(hands) else None
        panel.plot([at] * len(SEEDS), entry.lows, "o", color=colour, label=label, markersize=6, alpha=0.8)
    legend(panel)


def _labelled(tables: list[tuple[str, Table]]) -> Table:
    """Tables of equal columns one under the other, each row with how its methods were tuned."""
    return Table(["tuned", *tables[0][1].columns], [[kind, *row] for kind, table in tables for row in table.rows])


def _arenas(scale: Scale) -> tuple[Arena, Arena]:
    task = workload("cifar100", scale)
    return Arena(task), Arena(task, WORKERS)


def _work(lab: Lab) -> list[tuple[Experiment, int]]:
    contenders = baselines(lab.scale)
    one, many = _arenas(lab.scale)
    return [*work(one, contenders), *work(many, contenders)]


def _work_adam(lab: Lab) -> list[tuple[Experiment, int]]:
    return work(_arenas(lab.scale)[1], _adams(lab.scale))


def _cost(scale: Scale) -> str:
    return counted([item for arena in _arenas(scale) for item in work(arena, baselines(scale))], scale, 20)


def _cost_adam(scale: Scale) -> str:
    return f"{counted(work(_arenas(scale)[1], _adams(scale)), scale, 5)}; async-cifar100 shares most of them"


ASYNC_CIFAR100 = Reproduction("async-cifar100", _QUESTION, run, _cost, ("cifar100",), _work)
ASYNC_ADAM = Reproduction("async-adam", _ADAM_QUESTION, run_adam, _cost_adam, ("cifar100",), _work_adam)
