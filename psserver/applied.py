"""What total momentum is measured with: a gradient as it was applied, by the preconditioner of the one before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from psserver.rule_state import Preconditioned
from psserver.staleness import Corrected
from psserver.trajectory import Trajectory

if TYPE_CHECKING:
    from psserver.rules import Rule


class Applied:
    """Remembers what was applied to every version that may still be computed at.

    Version v + 1 was made with P_v a, P_v being the rule's preconditioner then, and g_v, computed at v, is applied with
    P_t. What `TotalMomentum` takes for the excess, α (P_t g_v − P_v a) over the step before, holds two things: that the
    gradient has changed, and that the preconditioner has, which says nothing of momentum: an eigenbasis that has been
    found anew, or second moments that have grown. So it is given

        P_t g_v − P_t a + P_v a

    instead: the excess is then α P_t (g_v − a), and g_v = a leaves none. It matters where minibatch noise is small.
    Rules without a preconditioner are left as they are, and so are those with a correction, which scales every gradient
    by a factor of its own.

    sample: takes the K sampled coordinates of a vector [N]; from the first update on always the same. Memory: of every
    version that the trajectory keeps 4 (R + K) bytes, with the R of `Preconditioned.around`.
    """

    def __init__(self, rule: Rule, trajectory: Trajectory, sample: Callable[[Tensor], Tensor]) -> None:
        self._rule, self._trajectory, self._sample = rule, trajectory, sample
        plain = rule.rule if isinstance(rule, Corrected) else rule
        self._changing = plain if isinstance(plain, Preconditioned) else None
        self._compares = self._changing is not None and plain is rule
        self._around: Tensor | None = None
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def take(self, vector: Tensor) -> Tensor:
        """What the rule must know of a vector [N] about the sampled coordinates, as a new tensor [R]."""
        around = self._coordinates()
        return self._sample(vector) if around is None else vector.index_select(0, around)

    @property
    def alone(self) -> bool:
        """Whether that are the sampled coordinates alone."""
        return self._coordinates() is None

    def measured(self, given: Tensor, x: Tensor, computed_at: int) -> Tensor:
        """Of the update just written, with the gradient `given` [R] at version x [R], what to measure with [K].

        computed_at: v. Where what was applied at v is not known it is the gradient as it was applied.
        """
        made = self._rule.applied(given, x, self.take)
        if not self._compares:
            return made
        version, before = self._trajectory.version, self._known.get(computed_at)
        self._known = {v: kept for v, kept in self._known.items() if self._trajectory.at(v) is not None}
        self._known[version] = given, made
        if before is None or computed_at == version:
            return made
        return made - self._rule.applied(before[0], x, self.take) + before[1]

    def _coordinates(self) -> Tensor | None:
        """Which [R] they are where they are not the sampled ones."""
        if self._changing is None:
            return None
        if self._around is None:
            sampled = self._sample(torch.arange(self._trajectory.current.tensor.numel()))
            around = self._changing.around(sampled)
            self._around = around if around is not sampled else torch.empty(0)
        return self._around if self._around.numel() else None
