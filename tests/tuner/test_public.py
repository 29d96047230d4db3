"""The public surface is one list."""

from __future__ import annotations

import tuner


def test_the_public_names_are_these() -> None:
    assert tuner.__all__ == [
        "NonFiniteGradient",
        "Pull",
        "Settings",
        "Strides",
        "Tuner",
        "TunerOptions",
        "YellowFin",
        "build",
    ]
    assert all(hasattr(tuner, name) for name in tuner.__all__)
