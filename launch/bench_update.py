"""`yfps bench --update`: what one update costs the server, without workers: the default beside plainer settings."""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from psserver import RuleOptions
from psserver.eigenbasis import Placed
from psserver.rules import make_rule
from psserver.soap import spare_sample, turned_share
from psserver.spread import Spread
from psserver.trajectory import Trajectory
from psserver.update import Updater
from tuner import TunerOptions, build

BASE, DEFAULT = "adam, constants", "the default (soap, distance, both)"
_CONSTANT = TunerOptions(target="constant", learning_rate=1e-3, momentum=0.5, loop="open")
SETTINGS = {
    "momentum SGD, constants": (RuleOptions("momentum_sgd"), _CONSTANT),
    BASE: (RuleOptions("adam"), _CONSTANT),
    "momentum SGD, YellowFin, loop closed": (
        RuleOptions("momentum_sgd"),
        TunerOptions(target="yellowfin", loop="closed"),
    ),
    "adam, distance, both": (RuleOptions("adam"), TunerOptions()),
    DEFAULT: (RuleOptions(), TunerOptions()),
}
"""What a row is called -> its rule and its tuner."""
_PAIRS, _NORMALISATION = 109, 64
_ROW = 9 * 64  # values of a convolution's output channel
_STALENESS = 3
_WARM = 10


def main(size: int, updates: int, threads: int) -> int:
    """Print milliseconds of an update of `size` parameters for each of `SETTINGS`, and its ratio to `BASE`.

    The default is measured on `threads` threads, too, if that is more than one.

    A round is one update of each, so that what else the machine does falls on all alike; medians and middle halves
    over `updates` rounds are printed, of the ratios within a round too. Every gradient is 3 updates
    old; total momentum is measured in all of them. No weight decay.
    """
    torch.set_num_threads(1)
    found = measure(size, updates, threads)
    title = f"One update of {size:,} parameters, median of {updates} interleaved ones, {os.cpu_count()} cores"
    table = Table(title=title)
    for column in ("", "ms", "middle half", "of adam's", "middle half"):
        table.add_column(column, justify="left" if column == "" else "right")
    for name, times in found.items():
        ratios = [own / base for own, base in zip(times, found[BASE], strict=True)]
        table.add_row(name, *_spread([1000 * seconds for seconds in times]), *_spread(ratios))
    Console(width=max(100, Console().width)).print(table)
    return 0


def measure(size: int, updates: int, threads: int = 1) -> dict[str, list[float]]:
    """Seconds of each round's update, by setting."""
    found: dict[str, list[float]] = {}
    with closing(Spread(threads)) as spread:
        steps = {name: _updater(size, rule, tuner) for name, (rule, tuner) in SETTINGS.items()}
        if threads > 1:
            steps[f"the default, {threads} threads"] = _updater(size, *SETTINGS[DEFAULT], spread)
        for number in range(_WARM + updates):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                if number >= _WARM:
                    found.setdefault(name, []).append(time.perf_counter() - start)
    return found


def _updater(size: int, rule: RuleOptions, options: TunerOptions, spread: Spread | None = None) -> Callable[[], None]:
    """One update after another; the versions that gradients are computed at are held, as workers hold them."""
    trajectory = Trajectory(np.zeros(size, np.float32), version=0, slots=_STALENESS + 3, directory=None)
    tensors = _tensors(size)
    sampled, turned = spare_sample(rule, tensors, size, options.sample, 0), turned_share(rule, tensors, size)
    tuner = build(options, size, 1_000_000, 0, _layers(size), sampled=sampled, turned=turned)
    tuner.record(0, trajectory.current.tensor)
    updater = Updater(trajectory, make_rule(rule, size, 1, tensors), tuner, rule.gradient_decay, spread)
    gradient = torch.randn(size, generator=torch.Generator().manual_seed(0)) * 1e-3
    held = deque([0] * (_STALENESS + 1))
    for _ in held:
        trajectory.hold(0)

    def step() -> None:
        computed_at = held.popleft()
        updater.apply(gradient, computed_at, 1.0)
        trajectory.release(computed_at)
        held.append(trajectory.version)
        trajectory.hold(trajectory.version)

    return step


def _layers(size: int) -> tuple[int, ...]:
    """As many layers as a ResNet-110 has, or fewer: a convolution and a normalisation by turns."""
    pairs = min(_PAIRS, size // (2 * _NORMALISATION) or 1)
    share = size // pairs
    if share <= _NORMALISATION:
        return (size,)
    rest = size - pairs * share
    return (share - _NORMALISATION + rest, _NORMALISATION) + (share - _NORMALISATION, _NORMALISATION) * (pairs - 1)


def _tensors(size: int) -> list[Placed]:
    """Those convolutions as whole rows, of 64 channels that come in and 3 × 3 values for each; biases are the rest."""
    found: list[Placed] = []
    offset = 0
    for values in _layers(size)[::2]:
        if values >= _ROW:
            found.append((offset, (values // _ROW, _ROW)))
        offset += values + _NORMALISATION
    return found


def _spread(values: Sequence[float]) -> tuple[str, str]:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f}", f"{low:.2f} … {high:.2f}"
