"""Total momentum from the lag that the server sees: no noise, no cost, and blind to curvature.

Derived: a gradient enters the trajectory after its staleness τ and rings on for μ/(1 − μ) further steps on average, so
the mean lag of the running system is L = τ̄ + μ/(1 − μ). The synchronous system of the same lag has momentum L/(1 + L);
for μ = 0 and memoryless staleness of M workers, where τ̄ = M − 1, that is 1 − 1/M (Mitliagkas et al. 2016).
"""

from __future__ import annotations

from torch import Tensor

from tuner.averages import Average
from tuner.target import State

MEMORY = 0.99  # decay of the average of staleness: the last hundred updates or so


class Lag:
    """`μ̂_T = L / (1 + L)` with `L = τ̄ + μ/(1 − μ)`, τ̄ the running mean of the staleness of the pushes.

    The same contract as `TotalMomentum`, but looks at version numbers only: its sample is empty.
    """

    def __init__(self) -> None:
        self._staleness = Average(MEMORY)
        self._newest = 0
        self._momentum = 0.0

    def sample(self, vector: Tensor) -> Tensor:
        """Nothing of it."""
        return vector[:0]

    def record(self, version: int, sampled: Tensor, learning_rate: float, momentum: float = 0.0) -> None:
        """Remember the newest version and the μ of the update that made it."""
        self._newest, self._momentum = version, momentum

    def measure(self, version: int, applied: Tensor) -> float:
        """μ̂_T after the update by a gradient that was computed at `version`."""
        staleness = self._staleness.update(float(self._newest - 1 - version))
        lag = staleness + self._momentum / (1.0 - self._momentum)
        return lag / (1.0 + lag)

    def holds(self, version: int) -> bool:
        """Whether that version was recorded last."""
        return version == self._newest

    def state_dict(self) -> State:
        """Mean staleness, newest version and μ."""
        return {"staleness": self._staleness.state_dict(), "newest": self._newest, "momentum": self._momentum}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer."""
        self._staleness.load_state_dict(state["staleness"])
        self._newest, self._momentum = int(state["newest"]), float(state["momentum"])
