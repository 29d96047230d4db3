"""robust-region: the rate of momentum is √μ over a whole region of αh, by eigenvalues and by the real server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from launch.lab.drive import Numbers, Vector, constant, drive
from launch.lab.finding import Finding, Lab, Reproduction, Scale, Table
from launch.lab.picture import COLOURS, GREY, labelled, legend, panels, style
from tuner.region import largest_stable_step

QUESTION = "Is the convergence rate √μ, whatever the learning rate and the curvature, inside the robust region?"
TOLERANCE = 0.02
"""Largest difference allowed between a rate fitted to a trajectory and the spectral radius."""
LIMITS_AGREE = 1e-5
"""Largest relative difference allowed between the stability limit by eigenvalues and the one derived."""
_MOMENTA = (0.1, 0.3, 0.5, 0.7, 0.9)
_DELAYS = (0, 1, 3, 7, 15)
_DELAYED = 0.5  # μ of the curves with delay
_DECAY = 60.0  # a trajectory is followed until e^−60; float32 ends at e^−87
_LONGEST = 1200
_DOTS = 15


@dataclass(frozen=True)
class Rates:
    """Rates of convergence a step over αh, for one μ and one delay τ.

    radius: the spectral radius.   server: what the real server's trajectory decays by.   inside: the robust region.
    """

    momentum: float
    delay: int
    gains: Numbers
    radius: Numbers
    server: Numbers
    inside: NDArray[np.bool_]

    @property
    def apart(self) -> float:
        """Largest difference between the two rates."""
        return float(np.abs(self.server - self.radius).max())


def spectral_radius(momentum: float | Numbers, gain: float | Numbers, delay: int = 0) -> Numbers:
    """Of x_{t+1} = x_t + μ (x_t − x_{t−1}) − αh x_{t−τ}, from the eigenvalues of its companion matrix.

    momentum: μ.   gain: αh, broadcast against μ.   delay: τ; for 0 the matrix is [[1 + μ − αh, −μ], [1, 0]].
    """
    mu, ah = np.broadcast_arrays(np.asarray(momentum, dtype=float), np.asarray(gain, dtype=float))
    size = max(2, delay + 1)
    companion = np.zeros((*mu.shape, size, size))
    companion[..., 1:, :-1] = np.eye(size - 1)
    companion[..., 0, 0] = 1 + mu
    companion[..., 0, 1] -= mu
    companion[..., 0, delay] -= ah
    return np.asarray(np.abs(np.linalg.eigvals(companion)).max(axis=-1))


def region(momentum: float) -> tuple[float, float]:
    """The αh between which the rate is √μ: (1 − √μ)² and (1 + √μ)²."""
    root = math.sqrt(momentum)
    return (1 - root) ** 2, (1 + root) ** 2


def largest_stable(momentum: float, delay: int) -> float:
    """The αh below which the iteration with delay τ converges, by bisection."""
    low, high = 1e-6, 8.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if spectral_radius(momentum, middle, delay) < 1 else (low, middle)
    return low


def rates(momentum: float, parts: Numbers, delay: int = 0) -> Rates:
    """Both rates at these parts (between 0 and 1) of the largest stable αh; without delay also at the region's edges.

    The server minimises a separable quadratic with α = 1: one coordinate for each curvature h, all in one run. A
    delay τ is τ + 1 workers in turn.
    """
    low, high = region(momentum)
    gains = parts * largest_stable(momentum, delay)
    if delay == 0:
        gains = np.sort(np.concatenate([gains, [low, high]]))
    radius = spectral_radius(momentum, gains, delay)
    updates = min(_LONGEST, math.ceil(-_DECAY / math.log(radius.min())))
    h = gains.astype(np.float32)
    order = np.arange(updates) % (delay + 1)
    trajectory = drive(np.ones_like(h), lambda x: h * x, constant(1.0, momentum), order)
    inside = (gains >= low) & (gains <= high) & (delay == 0)
    return Rates(momentum, delay, gains, radius, decay_rate(trajectory, delay + 2), inside)


def decay_rate(trajectory: Vector, width: int) -> Numbers:
    """Rate [N] at which a trajectory [T + 1, N] decays: exp of a slope over its second half.

    The slope is that of log ‖(x_t, …, x_{t−width+1})‖, the whole state of the iteration, which passes no zero as
    |x_t| does.
    """
    squares = np.square(trajectory.astype(float))
    size = 0.5 * np.log(sliding_window_view(squares, width, axis=0).sum(axis=-1))
    half = len(size) // 2
    slope: Numbers = np.polyfit(np.arange(half, len(size)), size[half:], 1)[0]
    return np.exp(slope)


def run(lab: Lab) -> Finding:
    """Compute, draw and judge."""
    points = 60 if lab.scale == "small" else 400
    plain = [rates(mu, np.linspace(0.004, 0.996, points)) for mu in _MOMENTA]
    delayed = [rates(_DELAYED, np.geomspace(0.004, 0.996, points), delay) for delay in _DELAYS]
    momenta = np.linspace(-0.9, 0.95, 38)
    stable = [
        [tau, mu, largest_stable(mu, tau), largest_stable_step(mu, tau)] for tau in _DELAYS for mu in momenta.tolist()
    ]
    derived = max(abs(found / known - 1.0) for _, _, found, known in stable)
    plateau = max(float(np.abs(one.radius - math.sqrt(one.momentum))[one.inside].max()) for one in plain)
    apart = max(one.apart for one in [*plain, *delayed])
    bounds = [largest_stable(_DELAYED, delay) for delay in _DELAYS]
    sentence = (
        f"Inside the region the spectral radius differs from √μ by at most {plateau:.0e}; on the real server |x_t| "
        f"decays at a rate that differs from the spectral radius by at most {apart:.4f} (tolerance {TOLERANCE}), with "
        f"and without delay. A constant delay leaves no region of constant rate: at μ = {_DELAYED} the largest "
        f"stable αh falls from {bounds[0]:.2f} without delay to {bounds[-1]:.3f} at τ = {_DELAYS[-1]}. The limit that "
        f"`tuner.region` derives differs from that of the eigenvalues by {derived:.0e} of it at most."
    )
    note = (
        "Server: constant α = 1 and μ, no noise, one coordinate for each curvature; a delay τ is τ + 1 workers in "
        "turn. A rate is the slope of log ‖(x_t, x_{t−1}, …)‖ over the second half of a trajectory; at the edges of "
        "the region, where two eigenvalues meet, x_t = (a + bt) √μ^t and the slope comes out high."
    )
    return Finding(
        name="robust-region",
        title="The robust region of momentum",
        question=QUESTION,
        agrees=plateau < 1e-6 and apart < TOLERANCE and derived < LIMITS_AGREE,
        sentence=sentence,
        table=_summary([*plain, *delayed[1:]]),
        data={
            "rates": _rows(plain),
            "delayed": _rows(delayed),
            "stable": Table(["delay", "momentum", "largest_stable_alpha_h", "derived_alpha_h"], stable),
        },
        figure=_draw(plain, delayed, np.array(stable)),
        notes=[note],
    )


def _summary(groups: Sequence[Rates]) -> Table:
    columns = ["τ", "μ", "√μ", "robust region of αh", "least radius", "largest stable αh", "server − radius, at most"]
    table = []
    for one in groups:
        edges = "{:.3f} … {:.3f}".format(*region(one.momentum)) if one.delay == 0 else "none"
        bound = largest_stable(one.momentum, one.delay)
        root = math.sqrt(one.momentum)
        table.append([one.delay, one.momentum, root, edges, float(one.radius.min()), bound, one.apart])
    return Table(columns, table)


def _rows(groups: Sequence[Rates]) -> Table:
    columns = ["delay", "momentum", "alpha_h", "inside", "spectral_radius", "server_rate"]
    return Table(
        columns,
        [
            [one.delay, one.momentum, *row]
            for one in groups
            for row in zip(
                *(values.tolist() for values in (one.gains, one.inside, one.radius, one.server)), strict=True
            )
        ],
    )


def _draw(plain: Sequence[Rates], delayed: Sequence[Rates], stable: Numbers) -> Figure | None:
    plane, lines, late, bounds = panels(4, 2, (10.0, 7.8))
    _draw_plane(plane)
    labelled(lines, "No delay", "learning rate × curvature, αh", "convergence rate a step")
    labelled(late, f"Delay τ, μ = {_DELAYED}", "αh", "convergence rate a step", xscale="log")
    for panel, groups, letter in ((lines, plain, "μ"), (late, delayed, "τ")):
        for index, one in enumerate(groups):
            label = f"{letter} = {one.momentum if letter == 'μ' else one.delay}"
            panel.plot(one.gains, one.radius, label=label, color=COLOURS[index], linewidth=1.8)
            some = slice(None, None, max(1, len(one.gains) // _DOTS))
            panel.plot(one.gains[some], one.server[some], "o", color=COLOURS[index], markersize=4)
    lines.plot([], [], "o", color=GREY, markersize=4, label="real server")
    labelled(bounds, "Largest stable αh", "momentum μ", "αh", yscale="log")
    for index, tau in enumerate(_DELAYS):
        known = stable[stable[:, 0] == tau]
        bounds.plot(known[:, 1], known[:, 2], label=f"τ = {tau}", **style(index))
        bounds.plot(known[::3, 1], known[::3, 3], "o", color=COLOURS[index], markersize=4)
    bounds.plot([], [], "o", color=GREY, markersize=4, label="derived")
    for panel in (lines, late, bounds):
        legend(panel, fontsize=9)
    return plane.get_figure(root=True)


def _draw_plane(panel: Axes) -> None:
    """Spectral radius over α and h for one μ; the region lies between two lines of constant αh."""
    labelled(panel, f"Spectral radius, μ = {_DELAYED}", "learning rate α", "curvature h", xscale="log", yscale="log")
    alpha, h = np.logspace(-3, 0, 120), np.logspace(-1, 3, 120)
    values = np.clip(spectral_radius(_DELAYED, np.outer(h, alpha)), None, 1.05)
    mesh = panel.pcolormesh(alpha, h, values, cmap="cividis", shading="auto", rasterized=True)
    for product, dash in ((region(_DELAYED)[0], "--"), (region(_DELAYED)[1], "--"), (2 * (1 + _DELAYED), "-")):
        panel.plot(alpha, product / alpha, color="white", linestyle=dash, linewidth=1.4)
    panel.set_ylim(h[0], h[-1])
    panel.grid(False)
    panel.text(0.03, 0.05, "between dashes: √μ\nabove solid: diverges", color="white", transform=panel.transAxes)
    panel.figure.colorbar(mesh, ax=panel, extend="max")


def _cost(scale: Scale) -> str:
    return "seconds on one core" if scale == "small" else "a minute on one core"


ROBUST_REGION = Reproduction("robust-region", QUESTION, run, _cost)
