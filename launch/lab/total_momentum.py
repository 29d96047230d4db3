"""total-momentum and closed-loop: measured momentum of sixteen workers, and the loop that holds it at its target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.figure import Figure

from launch.experiment import Experiment, load_experiment
from launch.history import smoothed
from launch.lab.drive import Numbers
from launch.lab.finding import Finding, Lab, Reproduction, Scale, Table
from launch.lab.picture import COLOURS, GREY, curve, labelled, legend, panels
from launch.lab.points import How, Outcome, Point
from launch.supervisor import RunFailed

TOTAL_QUESTION = "Is total momentum the algorithmic one without staleness, and above it with 16 asynchronous workers?"
LOOP_QUESTION = "Does the closed loop hold total momentum at its target by lowering the algorithmic momentum?"
TOLERANCE = 1e-4
"""Largest |measured − algorithmic| allowed in any update without staleness."""
HELD = 0.05
"""Largest |mean total − target| in the second half of a run for the loop to count as holding its target."""
_WORKERS = 16
_WINDOW = 25
_SGD = ("rule.name=momentum_sgd", "rule.beta2=0.999", "tuner.robust=false")
"""The article's rule and targets, whatever the defaults are."""


@dataclass(frozen=True)
class Measured:
    """What one run measured, update by update; NaN where total momentum could not be measured."""

    name: str
    total: Numbers
    momentum: Numbers
    target: Numbers
    staleness: Numbers

    @classmethod
    def of(cls, outcome: Outcome) -> Measured:
        """Read it off the run's record. Raises RunFailed when the run diverged, as none of these should."""
        if outcome.diverged:
            raise RunFailed(f"{outcome.point.name}: diverged; see {outcome.path} {outcome.failure}".rstrip())
        names = ("total_momentum", "momentum", "target_momentum", "staleness")
        return cls(outcome.point.name, *(outcome.column(name) for name in names))

    @cached_property
    def late(self) -> slice:
        """The second half of the run."""
        return slice(len(self.total) // 2, None)

    def mean(self, values: Numbers) -> float:
        """Mean over the second half, of what was measured."""
        part = values[self.late]
        return float(np.nanmean(part)) if np.isfinite(part).any() else math.nan

    @cached_property
    def excess(self) -> float:
        """Mean of measured − algorithmic momentum in the second half."""
        return self.mean(self.total - self.momentum)

    @cached_property
    def largest(self) -> float:
        """Largest |measured − algorithmic momentum| of any update."""
        return float(np.nanmax(np.abs(self.total - self.momentum)))

    @cached_property
    def lag(self) -> float:
        """The other estimator, L/(1 + L) with L = τ̄ + μ/(1 − μ), from the means of the second half."""
        momentum = self.mean(self.momentum)
        lag = self.mean(self.staleness) + momentum / (1 - momentum)
        return lag / (1 + lag)


def quadratic(momentum: float, rate: float, updates: int, noise: float, *settings: str) -> Experiment:
    """½ Σ hᵢxᵢ² with h from 0.5 to 1, constant target; noise: standard deviation of each gradient element."""
    task = f"task.arguments={{size=512, h_min=0.5, h_max=1.0, noise={noise}}}"
    return load_experiment("quadratic", [task, *_SGD, *_constant(momentum, rate, updates), *settings])


def digits(momentum: float, rate: float, updates: int, *settings: str) -> Experiment:
    """The handwritten digits with the small CNN, constant target."""
    return load_experiment("digits_async16", [*_SGD, *_constant(momentum, rate, updates), *settings])


def _constant(momentum: float, rate: float, updates: int) -> list[str]:
    tuner = ["target=constant", "loop=open", f"momentum={momentum}", f"learning_rate={rate}", "lr_factor=1.0"]
    plan = [f"train.updates={updates}", f"train.workers={_WORKERS}", "evaluate.every=0", "launch.evaluator=false"]
    return [*(f"tuner.{one}" for one in tuner), *plan]


def total_points(how: How, scale: Scale) -> list[Point]:
    """The runs of total-momentum: without staleness first, then asynchronous."""
    long = 1 if scale == "small" else 5
    one, together = "train.workers=1", "server.mode=synchronous"
    return [
        Point("1 worker", quadratic(0.5, 0.02, 300 * long, 0.0, one), how),
        Point("16 synchronous", quadratic(0.5, 0.02, 300 * long, 0.0, together), how),
        Point("16 asynchronous", quadratic(-0.3, 0.02, 800 * long, 0.0), how),
        Point("16 asynchronous", quadratic(0.0, 0.02, 800 * long, 0.0), how),
        Point("16 asynchronous", quadratic(0.5, 0.02, 800 * long, 0.0), how),
        Point("16 asynchronous, digits", digits(0.5, 0.01, 800 * long), how),
    ]


def run_total(lab: Lab) -> Finding:
    """Compute with real processes, draw and judge."""
    found = [Measured.of(outcome) for outcome in lab.points(total_points("train", lab.scale))]
    still, moving, noisy = found[:2], found[2:5], found[5]
    largest = max(one.largest for one in still)
    least = min(one.excess for one in moving)
    sentence = (
        f"Without staleness (one worker, sixteen synchronous ones) measured and algorithmic momentum differ by at most "
        f"{largest:.0e} in any update (tolerance {TOLERANCE:.0e}). With {_WORKERS} asynchronous processes the measured "
        f"one is above the algorithmic by {', '.join(f'{one.excess:.2f}' for one in moving)} for μ = "
        f"{', '.join(f'{one.momentum[-1]:g}' for one in moving)} on a quadratic without noise, and by "
        f"{noisy.excess:.3f} on digits with batches of 32."
    ).replace(" -", " −")
    return Finding(
        name="total-momentum",
        title="Total momentum of real processes",
        question=TOTAL_QUESTION,
        agrees=largest <= TOLERANCE and least > 0.02,
        sentence=sentence,
        table=_table(found),
        data={"updates": _updates(found)},
        figure=_draw_total(found),
        notes=[
            "Real processes on one host; means over the second half of each run. Lag: what the other estimator, which "
            "looks at staleness only, says: L/(1 + L) with L = τ̄ + μ/(1 − μ).",
            "Quadratic: 512 curvatures from 0.5 to 1, α = 0.02. The excess is the gap between the gradient at x_v and "
            "the stale one that was applied there, about αhτ for slow motion; minibatch noise hides it.",
        ],
    )


def loop_points(scale: Scale) -> list[Point]:
    """The runs of closed-loop: where the loop sees the excess, simulated and real, and where it cannot."""
    long = 1500 if scale == "small" else 6000
    closed = "tuner.loop=closed"
    seen = quadratic(0.3, 0.04, long, 0.0, closed)
    return [
        Point("quadratic, simulated", seen),
        Point("quadratic, real processes", seen, "train"),
        Point("noisy quadratic, simulated", quadratic(0.3, 0.04, long, 10.0, closed)),
        Point(
            "digits, YellowFin's target, simulated", load_experiment("digits_async16", [*_SGD, f"train.updates={long}"])
        ),
    ]


def run_loop(lab: Lab) -> Finding:
    """Compute, draw and judge."""
    found = [Measured.of(outcome) for outcome in lab.points(loop_points(lab.scale))]
    clear, blind, tuned = found[:2], found[2], found[3]
    misses = [one.mean(one.total - one.target) for one in clear]
    agrees = all(abs(miss) <= HELD and one.excess > HELD for miss, one in zip(misses, clear, strict=True))
    sentence = (
        f"With {_WORKERS} workers and a target of {clear[0].target[-1]:g} total momentum ends at "
        f"{_late(clear[0], 'total')} (simulated) and {_late(clear[1], 'total')} (real processes), and the algorithmic "
        f"momentum that holds it there is {_late(clear[0], 'momentum')} and {_late(clear[1], 'momentum')}. Where noise "
        f"dominates the loop is nearly blind: with the same staleness it sees an excess of {blind.excess:.2f} in place "
        f"of {clear[0].excess:.2f} and ends at an algorithmic momentum of {_late(blind, 'momentum')}. On digits with "
        f"YellowFin's target ({_late(tuned, 'target')}) total momentum is {_late(tuned, 'total')}, the algorithmic "
        f"{_late(tuned, 'momentum')}."
    )
    return Finding(
        name="closed-loop",
        title="The closed loop",
        question=LOOP_QUESTION,
        agrees=agrees,
        sentence=sentence,
        table=_table(found),
        data={"updates": _updates(found)},
        figure=_draw_loop(found),
        notes=[
            "γ = 0.01, μ starts at 0, median estimator, round-robin staleness of 15 in the simulator; means "
            f"over the second half. Curves of total momentum are means of {_WINDOW} updates.",
            "The median estimator sees the gap between the gradient at x_v and the one that was applied there; noise "
            "in that gap has median 0 and drowns the rest. The lag estimator sees staleness in any noise, but no "
            "curvature: the two measure different things and differ widely here.",
        ],
    )


def _late(one: Measured, name: str) -> str:
    return f"{one.mean(getattr(one, name)):.3f}".replace("-", "−")


def _table(found: Sequence[Measured]) -> Table:
    columns = [
        "run",
        "target",
        "algorithmic",
        "total, measured",
        "excess",
        "largest deviation",
        "lag estimate",
        "staleness",
    ]
    rows = [
        [
            *(one.name, one.mean(one.target), one.mean(one.momentum), one.mean(one.total), one.excess, one.largest),
            *(one.lag, one.mean(one.staleness)),
        ]
        for one in found
    ]
    return Table(columns, rows)


def _updates(found: Sequence[Measured]) -> Table:
    columns = ["run", "update", "target_momentum", "momentum", "total_momentum", "staleness"]
    return Table(
        columns,
        [
            [number, update, *values]
            for number, one in enumerate(found)
            for update, values in enumerate(
                zip(*(part.tolist() for part in (one.target, one.momentum, one.total, one.staleness)), strict=True), 1
            )
        ],
    )


def _draw_total(found: Sequence[Measured]) -> Figure | None:
    bars, lines = panels(2, 2, (10.0, 4.6))
    labelled(bars, "Total momentum", "", "momentum")
    names = [f"{one.name.replace('hronous', '')}, μ = {one.momentum[-1]:g}" for one in found]
    at = np.arange(len(found))
    bars.plot(at, [one.mean(one.momentum) for one in found], "_", color=COLOURS[4], markersize=18, markeredgewidth=3)
    bars.plot([], [], "_", color=COLOURS[4], markersize=12, markeredgewidth=3, label="algorithmic")
    bars.plot(at, [one.mean(one.total) for one in found], "o", color=COLOURS[3], label="measured")
    bars.plot(at, [one.lag for one in found], "x", color=GREY, label="lag estimate")
    bars.set_xticks(at, names, rotation=30, ha="right", fontsize=8)
    labelled(lines, "Update by update", "update", "measured total momentum")
    for index, one in enumerate(found[1:]):
        curve(
            lines, range(len(one.total)), smoothed(one.total, _WINDOW).tolist(), names[index + 1], index, linestyle="-"
        )
    for panel in (bars, lines):
        legend(panel, fontsize=9)
    return bars.get_figure(root=True)


def _draw_loop(found: Sequence[Measured]) -> Figure | None:
    every = panels(4, 2, (10.0, 7.8))
    for panel, one in zip(every, found, strict=True):
        labelled(panel, one.name[0].upper() + one.name[1:], "update", "momentum")
        t = range(len(one.total))
        curve(panel, t, one.target.tolist(), "target", 0, linestyle=":")
        curve(panel, t, smoothed(one.total, _WINDOW).tolist(), "total, measured", 3)
        curve(panel, t, one.momentum.tolist(), "algorithmic", 4, linestyle="--")
        panel.axhline(0, color=GREY, linewidth=0.8)
        legend(panel, fontsize=9)
    return every[0].get_figure(root=True)


def _total_cost(scale: Scale) -> str:
    return (
        "6 runs of up to 16 processes, about a minute" if scale == "small" else "6 runs of up to 16 processes, minutes"
    )


def _loop_cost(scale: Scale) -> str:
    return "3 simulated runs and one of 16 processes, under a minute" if scale == "small" else "4 runs, minutes"


TOTAL_MOMENTUM = Reproduction("total-momentum", TOTAL_QUESTION, run_total, _total_cost)
CLOSED_LOOP = Reproduction("closed-loop", LOOP_QUESTION, run_loop, _loop_cost)
