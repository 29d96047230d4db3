"""two-curvatures: a non-convex toy of curvatures 1 and 1000, where momentum tuned by their ratio converges at √μ."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch.lab.drive import Numbers, Vector, constant, drive
from launch.lab.finding import Finding, Lab, Reproduction, Scale, Table
from launch.lab.picture import COLOURS, GREY, labelled, legend, panels

QUESTION = "Does momentum tuned to the curvatures 1 and 1000 converge at the constant rate √μ on a non-convex toy?"
H_MIN, H_MAX = 1.0, 1000.0
TOLERANCE = 0.006
"""Largest difference allowed between a fitted rate and √μ, for a start to count as converging at √μ."""
SHARE = 0.95
"""Part of the starts that must converge at √μ for the toy to count as doing so."""
_UPDATES = 600
_START = 200.0  # the trajectory that is drawn begins here, where the curvature is 1


def tuned() -> float:
    """μ* = ((√κ − 1)/(√κ + 1))² for κ = 1000."""
    root = math.sqrt(H_MAX / H_MIN)
    return ((root - 1) / (root + 1)) ** 2


def smooth(x: Numbers) -> Numbers:
    """Generalised curvature h(x) = f′(x)/x: 1000 for |x| ≤ 1, 1 for |x| ≥ 100, and 1000 |x|^−1.5 between.

    f is a parabola of curvature 1000 in the middle, one of curvature 1 outside, and f′ = 1000/√|x| between, where f is
    not convex. f and f′ are continuous.
    """
    return np.asarray(np.clip(H_MAX * np.maximum(np.abs(x), 1.0) ** -1.5, H_MIN, None))


def abrupt(x: Numbers) -> Numbers:
    """The same two parabolas with nothing between: h(x) = 1000 for |x| ≤ 1, else 1. f has a concave kink at |x| = 1."""
    return np.where(np.abs(x) <= 1.0, H_MAX, H_MIN)


TOYS: dict[str, Callable[[Numbers], Numbers]] = {"smooth": smooth, "abrupt": abrupt}


@dataclass(frozen=True)
class Descent:
    """|x_t| from many starts on one toy with one μ and α = (1 − √μ)²/h_min.

    sizes: [updates + 1, starts].   rates: exp of the slope of log |x_t| over the second half, [starts].
    """

    toy: str
    momentum: float
    sizes: Numbers
    rates: Numbers

    @property
    def share(self) -> float:
        """Part of the starts that converge at √μ."""
        return float(np.mean(np.abs(self.rates - math.sqrt(self.momentum)) <= TOLERANCE))


def starts(count: int) -> Vector:
    """Where the descents begin, from 1.1 to 500, and `_START` first; one coordinate of the server each."""
    return np.concatenate([[_START], np.geomspace(1.1, 500.0, count - 1)]).astype(np.float32)


def descend(toy: str, momentum: float, begin: Vector, updates: int = _UPDATES) -> Descent:
    """All starts through the real server in one run, with constant α and μ; the coordinates do not touch each other."""
    h = TOYS[toy]

    def gradient(x: Vector) -> Vector:
        return (h(x.astype(float)) * x).astype(np.float32)

    rate = (1 - math.sqrt(momentum)) ** 2 / H_MIN
    sizes = np.abs(drive(begin, gradient, constant(rate, momentum), [0] * updates)).astype(float)
    half = updates // 2
    late = np.log(np.maximum(sizes[half:], 1e-45))
    rates = np.exp(np.polyfit(np.arange(len(late)), late, 1)[0])
    return Descent(toy, momentum, sizes, rates)


def run(lab: Lab) -> Finding:
    """Compute, draw and judge."""
    begin = starts(200 if lab.scale == "small" else 2000)
    momenta = [tuned(), 0.9, 0.92, 0.95, 0.97, 0.99]
    found = {toy: [descend(toy, mu, begin) for mu in momenta] for toy in TOYS}
    main = found["smooth"]
    enough = next((one for one in main if one.share >= SHARE), None)
    agrees = True if enough is main[0] else None if enough is not None else False
    table = [[one.toy, one.momentum, math.sqrt(one.momentum), *_row(one)] for group in found.values() for one in group]
    columns = ["toy", "μ", "√μ", "starts at √μ", "median rate", "worst rate"]
    thin = range(0, _UPDATES + 1, 2)
    paths = [[t, *(one.sizes[t, 0] for one in main), *(one.sizes[t, 0] for one in found["abrupt"])] for t in thin]
    names = [f"{toy}_{one.momentum:.4g}" for toy in ("smooth", "abrupt") for one in found[toy]]
    return Finding(
        name="two-curvatures",
        title="A non-convex toy with curvatures 1 and 1000",
        question=QUESTION,
        agrees=agrees,
        sentence=_sentence(found, enough),
        table=Table(columns, table),
        data={
            "rates": Table(["toy", "momentum", "root", "share_at_root", "median_rate", "worst_rate"], table),
            "trajectories": Table(["update", *names], paths),
        },
        figure=_draw(found),
        notes=[
            f"Real server, constant target, α = (1 − √μ)²; {len(begin)} starts with |x_0| from 1.1 to 500, one "
            f"coordinate each; rates over the second half of {_UPDATES} updates.",
            "The toys are ours, made to the article's description (curvatures 1 and 1000, not convex). Curvature is "
            "the generalised one, f′(x)/(x − x*): 1000 in the middle, 1 outside; between them it falls as |x|^−1.5 "
            "(smooth) or at once (abrupt).",
        ],
    )


def _sentence(found: dict[str, list[Descent]], enough: Descent | None) -> str:
    first, jump, wide = found["smooth"][0], found["abrupt"][0], found["abrupt"][3]
    if enough is first:
        more = ""
    elif enough is None:
        more = "; no larger μ that was tried brings it from nearly all"
    else:
        more = f"; a margin brings it from nearly all: {_percent(enough)} with μ = {enough.momentum:g}"
    return (
        f"On the smooth toy μ* = {first.momentum:.4f} exactly brings the rate √μ = {math.sqrt(first.momentum):.4f} "
        f"(± {TOLERANCE}) from {_percent(first)} of the starts{more}. Where the curvature jumps from 1 to 1000 "
        f"it is {_percent(jump)} with μ* and {_percent(wide)} with μ = {wide.momentum:g}. The rule is μ ≥ μ*: at μ* "
        "itself both curvatures lie on the edges of the robust region, and √μ for each single step is no bound for "
        "their product."
    )


def _percent(one: Descent) -> str:
    return f"{100 * one.share:.0f} %"


def _row(one: Descent) -> list[float]:
    return [one.share, float(np.median(one.rates)), float(one.rates.max())]


def _draw(found: dict[str, list[Descent]]) -> Figure | None:
    toy, shares, *paths = panels(4, 2, (10.0, 7.8))
    _draw_toys(toy)
    labelled(shares, "Starts that converge at √μ", "momentum μ", "share of starts")
    for index, (name, group) in enumerate(found.items()):
        points = [one.momentum for one in group], [one.share for one in group]
        shares.plot(*points, "o-", color=COLOURS[index], label=name)
    shares.axvline(tuned(), color=GREY, linestyle=":", label="μ*")
    for panel, (name, group) in zip(paths, found.items(), strict=True):
        labelled(panel, f"{name.capitalize()}: |x_t| from x_0 = {_START:g}", "update t", "|x_t|", yscale="log")
        for index, one in enumerate((group[0], group[3])):
            colour = COLOURS[index + 2]
            panel.plot(one.sizes[:, 0], color=colour, linewidth=1.2, label=f"μ = {one.momentum:.3g}")
            theory = _START * math.sqrt(one.momentum) ** np.arange(_UPDATES + 1)
            panel.plot(theory, color=colour, linestyle="--", linewidth=1.5, label="√μ^t")
        panel.set_ylim(1e-16, 1e6)
    for panel in (toy, shares, *paths):
        legend(panel, fontsize=9)
    return toy.get_figure(root=True)


def _draw_toys(panel: Axes) -> None:
    """f of the two toys, from their f′ = h(x) x."""
    labelled(panel, "The toy", "x", "f(x)")
    x = np.linspace(0, 20, 4001)
    for index, name in enumerate(("smooth", "abrupt")):
        slope = TOYS[name](x) * x
        f = np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * np.diff(x))])
        both = np.concatenate([-x[::-1], x]), np.concatenate([f[::-1], f])
        panel.plot(*both, color=COLOURS[index], label=name)


def _cost(scale: Scale) -> str:
    return "seconds on one core"


TWO_CURVATURES = Reproduction("two-curvatures", QUESTION, run, _cost)
