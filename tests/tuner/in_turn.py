"""Pushes of workers in turn, told to the loop of a target that bears staleness."""

from __future__ import annotations

from tuner.beyond import Beyond

TARGET = 0.8


def settled(workers: int, excess: float | None = None, pushes: int = 600, target: float = TARGET) -> Beyond:
    """After so many pushes of M workers in turn, a momentum asked for before each."""
    loop = Beyond(-0.9, 0.999)
    for _ in range(pushes):
        loop.momentum(target)
        loop.weigh(workers - 1, excess)
    loop.momentum(target)
    return loop
