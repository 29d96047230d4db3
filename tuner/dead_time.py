"""How fast a controller may raise what it sets, where what that does shows only after the staleness."""

from __future__ import annotations

BORNE = 20.0  # 1 + E[τ] up to which what was found with sixteen workers holds; by measurement (docs/research.md)
POWER = 1.5  # 1 bounds what is raised before anything shows; a little less than that is better by measurement


def haste(staleness: float) -> float:
    """Part of its usual speed, in (0, 1], at a mean staleness: `min(1, (20/(1 + E[τ]))^1.5)`.

    What rises by v in an update has risen by e^(v E[τ]) before the first gradient tells. So v must fall at least as
    1/E[τ], or a step that was raised too far is many times too long by then. Falling is never held back.
    """
    return float(min(1.0, (BORNE / (1.0 + staleness)) ** POWER))
