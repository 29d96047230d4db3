"""Exponential averages of scalars, zero-debiased, in double precision."""

from __future__ import annotations

import math

from tuner.target import State

LARGEST_LOG = 709.7  # exp of it is still finite


class Average:
    """Zero-debiased exponential average: `s ← βs + (1−β)x`, `n ← βn + (1−β)`, value `s/n` (Kingma and Ba, 2015).

    `n` equals `1 − βᵗ` after t values and is carried along instead of computed, so that the average of a constant is
    that constant to rounding, however many values came.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.total = 0.0
        self.weight = 0.0

    def update(self, value: float) -> float:
        """Take one more value; returns the new average."""
        self.total = self.beta * self.total + (1.0 - self.beta) * value
        self.weight = self.beta * self.weight + (1.0 - self.beta)
        return self.value

    @property
    def empty(self) -> bool:
        """Whether no value came yet."""
        return self.weight == 0.0

    @property
    def value(self) -> float:
        """The average; 0 before the first value."""
        return 0.0 if self.empty else self.total / self.weight

    def state_dict(self) -> State:
        """Two floats."""
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self.total, self.weight = float(state["total"]), float(state["weight"])


class Tracked:
    """A slow average that a change moves at once: it is held within two standard errors of a quick one.

    Both are `Average`s of the same values. The quick one's standard error, √((E[x²] − E[x]²)(1 − β)/(1 + β)), takes the
    values for independent. So as long as they come from one distribution this is the slow average but for a few in a
    hundred of the moments; and after a change it is near the quick one, from the side it comes from.
    """

    def __init__(self, slow: float, quick: float) -> None:
        self._slow, self._quick, self._square = Average(slow), Average(quick), Average(quick)

    def update(self, value: float) -> float:
        """Take one more value; returns the new average."""
        for average in (self._slow, self._quick):
            average.update(value)
        self._square.update(value * value)
        return self.value

    @property
    def empty(self) -> bool:
        """Whether no value came yet."""
        return self._slow.empty

    @property
    def value(self) -> float:
        """The average; 0 before the first value."""
        mean, beta = self._quick.value, self._quick.beta
        chance = 2.0 * math.sqrt(max(0.0, self._square.value - mean * mean) * (1.0 - beta) / (1.0 + beta))
        return min(max(self._slow.value, mean - chance), mean + chance)

    def state_dict(self) -> State:
        """Six floats."""
        return {name: getattr(self, f"_{name}").state_dict() for name in ("slow", "quick", "square")}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        for name in ("slow", "quick", "square"):
            getattr(self, f"_{name}").load_state_dict(state[name])


class LogAverage(Average):
    """`Average` of logarithms: takes positive values and gives their weighted geometric mean."""

    def update(self, value: float) -> float:
        """Take one more value, which must be above 0; returns the new geometric mean."""
        super().update(math.log(value))
        return self.value

    @property
    def value(self) -> float:
        """The geometric mean; 0 before the first value."""
        return 0.0 if self.empty else math.exp(min(self.total / self.weight, LARGEST_LOG))
