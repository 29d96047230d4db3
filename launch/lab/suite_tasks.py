"""The zero-tuning suite's tasks, of different nature, and the settings of workers and staleness they are run in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from launch.lab.comparison import Arena
from launch.lab.contenders import ADAM_RATES, Settings
from launch.lab.finding import Scale
from launch.lab.workloads import Workload

Kind = Literal["none", "round-robin", "memoryless", "stragglers", "joining", "slowing"]
STEADY: tuple[Kind, ...] = ("none", "round-robin", "memoryless", "stragglers")
CHANGING: tuple[Kind, ...] = ("joining", "slowing")
KINDS = STEADY + CHANGING
NUMBERS = (1, 4, 16, 32)
"""Of workers; the small scale has 32 where they are asked for."""
_WORDS: dict[Kind, str] = {"joining": "4 at first", "slowing": "one becomes 20 × slower"}
_SLOWDOWN, _SLOWER = 8.0, 20.0
_CHANGE = 3
"""What changes does so after one such part of the updates."""
_SPACING = 3.0

# Runs of the suite are many and short: nothing is measured beside the training loss, except once at the end.
_CHEAP: Settings = {"evaluate.every": 0, "evaluate.statistics": 1, "checkpoint.every": 0}


@dataclass(frozen=True)
class SuiteTask:
    """A task of the suite.

    gain:    α / (1 − μ) in the middle of SGD's grid with one worker.   needs: data sets that are not shipped.
    rates:   α of Adam's grid at the small scale.
    changes: it is also run with workers that join, and with one that slows down, in mid-run.
    further: it takes part in the suite only where it is asked for by name.
    """

    name: str
    workload: Workload
    gain: float
    needs: tuple[str, ...] = ()
    rates: tuple[float, ...] = ADAM_RATES
    changes: bool = False
    further: bool = False


@dataclass(frozen=True)
class Setting:
    """A task with a number of workers and a kind of staleness.

    kind: of staleness, or of a change in mid-run.   workers: the most at a time.   settings: of the simulator.
    """

    task: SuiteTask
    workers: int
    kind: Kind
    settings: Settings = field(default_factory=dict)

    @property
    def steady(self) -> bool:
        """Nothing changes in mid-run."""
        return self.kind in STEADY

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return f"M = {self.workers}" + ("" if self.kind == "none" else f", {_WORDS.get(self.kind, self.kind)}")

    @property
    def arena(self) -> Arena:
        """Where contenders meet."""
        fixed = {**_CHEAP, **self.settings}
        return Arena(self.task.workload, self.workers, fixed, f"{self.task.name}, {self.label}")

    def gains(self, scale: Scale) -> tuple[float, ...]:
        """Gains of SGD's grid, about a middle that falls as the staleness grows: by the spacing for 4 times as many."""
        middle = self.task.gain * _SPACING ** -round(math.log(self.workers, 4))
        steps = range(-2, 3) if scale == "small" else [k / 2 for k in range(-5, 6)]
        return tuple(float(f"{middle * _SPACING**k:.2g}") for k in steps)


def tasks(scale: Scale) -> list[SuiteTask]:
    """The suite's tasks at a scale: six small ones and the further ones, or eight that want many cores or a GPU."""
    return [*_SMALL, *_FURTHER, *_HELD_OUT] if scale == "small" else list(_PAPER)


def settings_of(task: SuiteTask, scale: Scale, numbers: Sequence[int] = ()) -> list[Setting]:
    """One worker without staleness, each larger number of workers with each kind of staleness, and the changes.

    numbers: of workers, those of `NUMBERS` that are asked for; none for the scale's own.
    """
    steady = numbers or (NUMBERS[:-1] if scale == "small" else NUMBERS)
    several = [_setting(task, workers, kind) for workers in steady if workers > 1 for kind in STEADY[1:]]
    changes = [one for one in _changes(task) if not numbers or one.workers in numbers] if task.changes else []
    return [*([_setting(task, 1, "none")] if 1 in steady else []), *several, *changes]


def _changes(task: SuiteTask) -> list[Setting]:
    """Workers that join in mid-run, and one that becomes slow."""
    at = task.workload.updates // _CHANGE
    joining = {"simulate.staleness": "memoryless", "simulate.workers_at_first": 4, "simulate.change_at": at}
    slowing = {"simulate.stragglers": 1, "simulate.slowdown": _SLOWER, "simulate.appear_at": at}
    return [
        Setting(task, 32, "joining", joining),
        Setting(task, 16, "slowing", {"simulate.staleness": "stragglers", **slowing}),
    ]


def _setting(task: SuiteTask, workers: int, kind: Kind) -> Setting:
    settings: Settings = {"simulate.staleness": kind}
    if kind == "stragglers":
        settings |= {"simulate.stragglers": max(workers // 8, 1), "simulate.slowdown": _SLOWDOWN}
    return Setting(task, workers, kind, settings)


def _resnet(dataset: str, words: str, updates: int, window: int, **arguments: Any) -> Workload:
    every = {"dataset": dataset, **arguments}
    return Workload(words, "worker.zoo.cifar:resnet", every, updates, window, weight_decay=2e-4)


def _text(kind: str, words: str, updates: int, window: int, **arguments: Any) -> Workload:
    return Workload(words, f"worker.zoo.language:{kind}", arguments, updates, window)


def _simple(function: str, words: str, updates: int, window: int, **arguments: Any) -> Workload:
    return Workload(words, f"worker.zoo.{function}", arguments, updates, window)


_IMAGES: dict[str, Any] = {"depth": 8, "width": 8, "batch": 16, "evaluate_examples": 500}
_LSTM: dict[str, Any] = {"hidden": 32, "layers": 1, "batch": 8, "evaluate_tokens": 1000}
_FORMER: dict[str, Any] = {**_LSTM, "layers": 2, "heads": 2}

_FAST = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Adam's rates where larger ones pay."""

_SMALL: tuple[SuiteTask, ...] = (
    SuiteTask(
        "quadratic",
        _simple("quadratic:quadratic", "noisy quadratic, condition 100", 800, 50, size=500, h_min=0.01, noise=0.1),
        gain=0.5,
        rates=_FAST,
    ),
    SuiteTask("digits-cnn", _simple("digits:cnn", "digits, CNN", 800, 50, width=8, batch=16), gain=0.3, changes=True),
    SuiteTask(
        "digits-mlp", _simple("digits:mlp", "digits, 4 layers of 32", 1200, 50, hidden=32, layers=4, batch=16), gain=1.0
    ),
    SuiteTask(
        "cifar10",
        _resnet("cifar10", "CIFAR-10, ResNet-8", 600, 50, **_IMAGES),
        gain=1.0,
        needs=("cifar10",),
        changes=True,
    ),
    SuiteTask(
        "char-lstm",
        _text("character_lstm", "Shakespeare, LSTM of 32", 800, 50, sequence=20, **_LSTM),
        gain=10.0,
        rates=_FAST,
        changes=True,
    ),
    SuiteTask(
        "transformer",
        _text("character_transformer", "Shakespeare, transformer 2 × 32", 600, 50, sequence=32, **_FORMER),
        gain=1.0,
    ),
)

_FURTHER: tuple[SuiteTask, ...] = (
    SuiteTask(
        "wide-cnn",
        _simple("digits:cnn", "digits, CNN of width 32, batch 64", 400, 50, width=32, batch=64),
        gain=0.3,
        further=True,
    ),
    SuiteTask(
        "wide-mlp",
        _simple("digits:mlp", "digits, 2 layers of 256, batch 8", 600, 50, hidden=256, layers=2, batch=8),
        gain=0.3,
        further=True,
    ),
    SuiteTask(
        "word-lstm",
        _text("word_lstm", "Penn Treebank, LSTM of 32", 600, 50, unroll=10, vocabulary=2000, **_LSTM),
        gain=10.0,
        needs=("ptb",),
        rates=_FAST,
        further=True,
    ),
)
"""Tasks that were held out until a form of the default was chosen by them, too."""

_HELD_OUT: tuple[SuiteTask, ...] = (
    SuiteTask(
        "autoencoder",
        _simple("digits:autoencoder", "digits, autoencoder 64-48-8", 800, 50, batch=16),
        gain=3.0,
        rates=_FAST,
        further=True,
    ),
    SuiteTask(
        "group-norm",
        _simple("digits:cnn", "digits, CNN of width 12 with GroupNorm", 500, 50, width=12, batch=16, norm="group"),
        gain=0.3,
        further=True,
    ),
    SuiteTask(
        "parsing",
        _text("parsing_lstm", "parse trees, LSTM of 32", 600, 50, unroll=15, **_LSTM),
        gain=10.0,
        needs=("treebank",),
        rates=_FAST,
        further=True,
    ),
)
"""Tasks of other kinds, chosen before the default was ever run on them; nothing has been chosen by them since."""

_LARGER: dict[str, Any] = {"hidden": 128, "layers": 2, "batch": 20, "evaluate_tokens": 20_000}
_PAPER: tuple[SuiteTask, ...] = (
    SuiteTask(
        "quadratic",
        _simple("quadratic:quadratic", "noisy quadratic, condition 1,000", 10_000, 500, size=2000, h_min=1e-3),
        gain=0.5,
    ),
    SuiteTask(
        "digits-cnn", _simple("digits:cnn", "digits, CNN", 5000, 200, width=16, batch=32), gain=0.3, changes=True
    ),
    SuiteTask("digits-mlp", _simple("digits:mlp", "digits, 6 layers of 64", 5000, 200, hidden=64, layers=6), gain=1.0),
    SuiteTask(
        "cifar10",
        _resnet("cifar10", "CIFAR-10, ResNet-20, batch 64", 20_000, 1000, depth=20, batch=64),
        gain=1.0,
        needs=("cifar10",),
        changes=True,
    ),
    SuiteTask(
        "cifar100",
        _resnet("cifar100", "CIFAR-100, ResNet-20, batch 64", 20_000, 1000, depth=20, batch=64),
        gain=1.0,
        needs=("cifar100",),
    ),
    SuiteTask(
        "char-lstm",
        _text("character_lstm", "Shakespeare, LSTM 2 × 128", 8000, 500, sequence=50, **_LARGER),
        gain=10.0,
        changes=True,
    ),
    SuiteTask(
        "word-lstm",
        _text("word_lstm", "Penn Treebank, LSTM 2 × 128", 15_000, 500, unroll=20, **_LARGER),
        gain=10.0,
        needs=("ptb",),
    ),
    SuiteTask(
        "transformer",
        _text("character_transformer", "Shakespeare, transformer 2 × 128", 8000, 500, sequence=64, heads=4, **_LARGER),
        gain=1.0,
    ),
)
