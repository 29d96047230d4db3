"""The distance to the optimum as workers found it by line searches, in place of the one guessed from gradient norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.averages import LogAverage
from tuner.target import State


@dataclass(frozen=True)
class ByWorkers:
    """What the YellowFin target has from the workers: updates between two measurements of each kind; 0 for none."""

    curvature_every: int = 0
    distance_every: int = 0


class SearchedDistance:
    """D from line searches along −g, averaged over time in the log domain: lengths spread over orders of magnitude.

    beta: decay an update; every: updates between two searches, so that the average forgets by the update as YellowFin's
    others do.
    """

    def __init__(self, beta: float, every: int) -> None:
        self._average = LogAverage(beta**every)
        self._looked: float | None = None

    def look(self, length: float) -> None:
        """Take a length, which counts once `accept` is called; one that is 0 or not finite is none."""
        self._looked = length if 0.0 < length < math.inf else None

    def accept(self) -> None:
        """The gradient that came with the length is good."""
        if self._looked is not None:
            self._average.update(self._looked)
        self._looked = None

    def drop(self) -> None:
        """The gradient that came with the length is not."""
        self._looked = None

    @property
    def known(self) -> bool:
        """Whether there was a length yet."""
        return not self._average.empty

    @property
    def value(self) -> float:
        """D, above 0; 0 while unknown."""
        return self._average.value

    def state_dict(self) -> State:
        """The average."""
        return self._average.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._looked = None
        self._average.load_state_dict(state)
