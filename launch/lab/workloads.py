"""The comparisons' workloads, at the article's scale and at one that two cores finish in minutes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from launch.experiment import EvaluateSection, Experiment, SimulateOptions, TaskSection, TrainSection
from launch.lab.finding import Scale
from psserver.options import RuleOptions

_IMAGES = 50_000
Name = Literal["cifar10", "cifar100", "ptb", "shakespeare", "parsing"]


@dataclass(frozen=True)
class Workload:
    """A task, and how long it is trained.

    words:    what it is, in a few words.   function, arguments: the task's.
    updates:  of every run.   window: updates over which losses are smoothed.   weight_decay: λ, in the gradient.
    """

    words: str
    function: str
    arguments: dict[str, Any]
    updates: int
    window: int
    weight_decay: float = 0.0

    def experiment(self, workers: int = 1) -> Experiment:
        """The experiment: without staleness for one worker, else with that many in turn, as in the article."""
        return Experiment(
            task=TaskSection(function=self.function, arguments=self.arguments),
            train=TrainSection(updates=self.updates, workers=workers, seed=1),
            rule=RuleOptions(weight_decay=self.weight_decay),
            evaluate=EvaluateSection(every=self.updates // 2),
            simulate=SimulateOptions(staleness="none" if workers == 1 else "round-robin"),
        )


def workload(name: Name, scale: Scale) -> Workload:
    """The workload of that name at a scale."""
    return (_SMALL if scale == "small" else _PAPER)[name]


def long_workload(scale: Scale) -> Workload:
    """CIFAR-100 for longer than `workload` has it at the small scale; at the article's scale it is long as it is."""
    if scale == "paper":
        return _PAPER["cifar100"]
    return _images("cifar100", "ResNet-8 of width 8, batch 16", 6000, 200, **_RESNET)


def _images(dataset: Name, words: str, updates: int, window: int, **arguments: Any) -> Workload:
    more = {"dataset": dataset, **arguments}
    words = f"{words} ({updates * arguments['batch'] / _IMAGES:.3g} epochs)"
    return Workload(words, "worker.zoo.cifar:resnet", more, updates, window, weight_decay=2e-4)


def _text(kind: str, words: str, updates: int, window: int, **arguments: Any) -> Workload:
    return Workload(words, f"worker.zoo.language:{kind}_lstm", arguments, updates, window)


# The article's networks, batches and weight decay, and the depths and updates of its published run scripts (its text
# says 110 and 164 layers). How many updates its LSTMs took is not known here; those numbers are ours.
_PAPER: dict[Name, Workload] = {
    "cifar10": _images("cifar10", "ResNet-32, batch 128", 40_000, 1000, depth=32, batch=128, channels_last=True),
    "cifar100": _images("cifar100", "ResNet-47, batch 128", 150_000, 1000, depth=47, batch=128, channels_last=True),
    "ptb": _text("word", "LSTM 2 × 200, unroll 20, batch 20", 40_000, 1000, hidden=200, layers=2, unroll=20, batch=20),
    "shakespeare": _text("character", "LSTM 2 × 128, sequence 50, batch 50", 20_000, 1000, hidden=128, batch=50),
    "parsing": _text("parsing", "LSTM 3 × 500, unroll 50, batch 20", 40_000, 1000, hidden=500, layers=3),
}

_RESNET: dict[str, Any] = {"depth": 8, "width": 8, "batch": 16, "evaluate_examples": 1000}
_LSTM: dict[str, Any] = {"hidden": 64, "layers": 2, "batch": 10, "evaluate_tokens": 5000}
_SMALL: dict[Name, Workload] = {
    "cifar10": _images("cifar10", "ResNet-8 of width 8, batch 16", 700, 100, **_RESNET),
    "cifar100": _images("cifar100", "ResNet-8 of width 8, batch 16", 1000, 100, **_RESNET),
    "ptb": _text(
        "word",
        "LSTM 2 × 64, unroll 10, batch 10, the 2,000 most frequent words",
        1500,
        100,
        unroll=10,
        vocabulary=2000,
        **_LSTM,
    ),
    "shakespeare": _text("character", "LSTM 2 × 64, sequence 25, batch 10", 2000, 100, sequence=25, **_LSTM),
    "parsing": _text("parsing", "LSTM 2 × 64, unroll 20, batch 10", 1500, 100, unroll=20, **_LSTM),
}
