"""Options are checked where they are made."""

from __future__ import annotations

from typing import Any

import pytest

from tuner import TunerOptions


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target", "adam"), ("learning_rate", 0.0), ("learning_rate", float("nan")), ("momentum", 1.0),
        ("milestones", (5, 5)), ("milestones", (-1,)), ("decay", 0.0), ("warmup", -1), ("lr_factor", -1.0),
        ("beta", 1.0), ("window", 0), ("smoothing", "log"), ("loop", "shut"), ("gain", 0.0), ("momentum_min", 0.5),
        ("momentum_max", 1.0), ("sample", -1), ("history", 2), ("history", 4), ("estimator", "mean"), ("every", 0),
        ("beside", ("mean",)), ("beside", ("lag", "lag")),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected .*, got "):
        TunerOptions(**{field: value})


def test_the_defaults_are_valid() -> None:
    plain = TunerOptions()
    assert (plain.target, plain.loop, plain.estimator, plain.momentum) == ("distance", "both", "median", 0.8)
    assert plain.robust


@pytest.mark.parametrize("estimator", ["lag", "regression"])
def test_the_loop_of_both_goes_by_the_median_alone(estimator: Any) -> None:
    with pytest.raises(ValueError, match=f"^estimator: expected 'median', which the loop 'both' .*, got '{estimator}'"):
        TunerOptions(estimator=estimator)
    assert TunerOptions(beside=(estimator,)).loop == "both"


@pytest.mark.parametrize("where", [{"estimator": "regression"}, {"beside": ("regression",)}])
def test_the_regression_needs_every_gradient(where: Any) -> None:
    with pytest.raises(ValueError, match=r"^every: expected 1 with the estimator 'regression'"):
        TunerOptions(every=2, loop="closed", **where)
