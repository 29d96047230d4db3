"""implicit-momentum: memoryless asynchrony begets momentum 1 − 1/M and a step of α/M; round-robin does not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from launch.arrivals import Drawn, InTurn
from launch.lab.drive import Numbers, constant, drive
from launch.lab.finding import Finding, Lab, Reproduction, Scale, Table
from launch.lab.picture import COLOURS, GREY, labelled, legend, panels, style
from launch.lab.robust_region import largest_stable

QUESTION = "Do M asynchronous workers without momentum act like one with momentum 1 − 1/M and the step α/M?"
TOLERANCE = 0.01
"""Largest relative error allowed of the fitted 1 − 1/M and α/M (for M = 1: absolute, of a momentum of 0)."""
WORKERS = (1, 2, 4, 8, 16, 32, 64)
_GAINS = np.array([0.1, 0.2, 0.3])  # αh of the curvatures that are fitted together; μ = 0
_GROUPS = 10  # parts of the runs, for standard errors
_SHOWN = 16


@dataclass(frozen=True)
class Fit:
    """Least squares x_{t+1} − x_t ≈ momentum (x_t − x_{t−1}) − step ∇f(x_t).

    step: in units of α.   apart: largest |x_t − theory|, where theory is momentum 1 − 1/M and step α/M from x_0 = 1.
    """

    momentum: float
    step: float
    apart: float


@dataclass(frozen=True)
class Observed:
    """x_t (or its mean over runs) for some αh, [curvatures, updates + 1], its fit, and that fit's standard errors."""

    gains: Numbers
    x: Numbers
    fit: Fit
    errors: tuple[float, float] = (0.0, 0.0)


def mean_trajectory(workers: int, gains: Numbers, runs: int, updates: int, seed: int) -> Numbers:
    """E[x_t] of ½hx² with α = 1 and μ = 0 over memoryless arrivals, [groups, curvatures, updates + 1].

    An exact simulation of many runs at once: each worker holds the version it was given after its last push, one drawn
    at random pushes h x of that version. `same_as_server` compares the iteration with the real server's.
    """
    random = np.random.default_rng([seed, workers])
    each = max(1, runs // _GROUPS)
    means = np.ones((_GROUPS, len(gains), updates + 1))
    place = np.arange(each) * workers
    for group in means:
        held, x = np.ones((each * workers, len(gains))), np.ones((each, len(gains)))
        for t in range(updates):
            drawn = place + random.integers(workers, size=each)
            x = x - gains * held[drawn]
            held[drawn] = x
            group[:, t + 1] = x.mean(axis=0)
    return means


def follow(order: NDArray[np.int64], gains: Numbers) -> Numbers:
    """x_t of the same iteration in one given order of arrivals, [curvatures, updates + 1]."""
    held = np.ones((int(order.max()) + 1, len(gains)))
    x = np.ones((len(order) + 1, len(gains)))
    for t, worker in enumerate(order):
        x[t + 1] = x[t] - gains * held[worker]
        held[worker] = x[t + 1]
    return x.T


def same_as_server(workers: int, updates: int, seed: int) -> float:
    """Largest difference |x_t| between `follow` and the real server, in one memoryless order of the simulator."""
    arrivals = Drawn(workers, seed)
    order = np.array([turn.worker for turn in islice((arrivals.turn(v) for v in count()), updates)])
    h = _GAINS.astype(np.float32)
    real = drive(np.ones_like(h), lambda x: h * x, constant(1.0, 0.0), order)
    return float(np.abs(real.T - follow(order, h.astype(float))).max())


def fitted(x: Numbers, gains: Numbers, workers: int) -> Fit:
    """One regression over all curvatures and times; x: [curvatures, updates + 1]."""
    moves = np.diff(x, axis=1)
    slopes = gains[:, None] * x[:, 1:-1]
    matrix = np.stack([moves[:, :-1].ravel(), -slopes.ravel()], axis=1)
    (momentum, step), *_ = np.linalg.lstsq(matrix, moves[:, 1:].ravel(), rcond=None)
    apart = np.abs(x - expected(workers, gains, x.shape[1] - 1)).max()
    return Fit(float(momentum), float(step), float(apart))


def expected(workers: int, gains: Numbers, updates: int) -> Numbers:
    """E[x_t] by theory, [curvatures, updates + 1]; the first step is a whole α, for all workers start from x_0."""
    x = np.ones((len(gains), updates + 1))
    x[:, 1] = 1 - gains
    for t in range(1, updates):
        x[:, t + 1] = x[:, t] + (1 - 1 / workers) * (x[:, t] - x[:, t - 1]) - gains / workers * x[:, t]
    return x


def memoryless(workers: int, runs: int, seed: int = 1) -> Observed:
    """The means over memoryless arrivals and their fit, with its standard errors."""
    groups = mean_trajectory(workers, _GAINS, runs, 3 * workers + 20, seed)
    parts = [fitted(group, _GAINS, workers) for group in groups]
    errors = [float(np.std([getattr(p, k) for p in parts], ddof=1)) / math.sqrt(_GROUPS) for k in ("momentum", "step")]
    mean = groups.mean(axis=0)
    return Observed(_GAINS, mean, fitted(mean, _GAINS, workers), (errors[0], errors[1]))


def round_robin(workers: int) -> Observed:
    """The same where each worker pushes in turn; αh at 0.2 to 0.8 of what that delay can stand."""
    gains = np.array([0.2, 0.4, 0.8]) * largest_stable(0.0, workers - 1)
    arrivals = InTurn(workers, newest=False)
    order = np.array([arrivals.turn(v).worker for v in range(12 * workers + 20)])
    x = follow(order, gains)
    return Observed(gains, x, fitted(x, gains, workers))


def run(lab: Lab) -> Finding:
    """Compute, draw and judge."""
    runs = 60_000 if lab.scale == "small" else 400_000
    found = {workers: memoryless(workers, runs) for workers in WORKERS}
    turns = {workers: round_robin(workers) for workers in WORKERS}
    apart = max(same_as_server(workers, 300, 1) for workers in (2, 16, 64))
    worst = max(max(errors(workers, one.fit)) for workers, one in found.items())
    fit, turn = found[16].fit, turns[16].fit
    sentence = (
        f"For M = 16 the regression gives a momentum of {fit.momentum:.4f} (theory {1 - 1 / 16:.4f}) and a step of "
        f"{fit.step:.5f} α (theory {1 / 16:.5f} α); over M from 1 to 64 both are within {100 * worst:.2f} % of 1 − 1/M "
        f"and α/M (tolerance {100 * TOLERANCE:g} %). Round-robin arrivals are another operator: for M = 16 the same "
        f"regression gives {turn.momentum:.3f} and {turn.step:.4f} α, x_t leaves the theory's by "
        f"{turn.apart:.2f} (memoryless: {fit.apart:.3f}), and αh ≥ {largest_stable(0.0, 15):.3f} diverges."
    )
    columns = ["M", "1 − 1/M", "momentum", "± s.e.", "1/M", "step / α", "± s.e.", "off theory"]
    columns += ["round-robin: momentum", "step / α", "off theory", "largest stable αh"]
    rows = [_row(workers, found[workers], turns[workers].fit) for workers in WORKERS]
    names = [
        "workers",
        "theory_momentum",
        "momentum",
        "momentum_error",
        "theory_step",
        "step",
        "step_error",
        "residual",
    ]
    names += ["round_robin_momentum", "round_robin_step", "round_robin_off_theory", "round_robin_stable_alpha_h"]
    means = [
        [k, g, t, x]
        for k, one in found.items()
        for g, xs in zip(one.gains, one.x, strict=True)
        for t, x in enumerate(xs)
    ]
    return Finding(
        name="implicit-momentum",
        title="Asynchrony begets momentum",
        question=QUESTION,
        agrees=worst < TOLERANCE and apart < 1e-5,
        sentence=sentence,
        table=Table(columns, rows),
        data={"fits": Table(names, rows), "means": Table(["workers", "alpha_h", "update", "mean_x"], means)},
        figure=_draw(found, turns),
        notes=[
            f"No noise, μ = 0, αh = {', '.join(map(str, _GAINS.tolist()))}; means over {runs:,} independent runs, as "
            "the theory is one of expectations. They are simulated beside the server, many at a time; one order of "
            f"arrivals through the real server gives the same x_t to {apart:.0e}. Off theory: largest |x_t − theory|.",
            "Round-robin: αh at 0.2, 0.4 and 0.8 of what a delay of M − 1 can stand.",
            "Source: Mitliagkas, Zhang, Hadjis and Ré (2016), Asynchrony begets momentum.",
        ],
    )


def errors(workers: int, fit: Fit) -> tuple[float, float]:
    """How far a fit is from theory: of 1 − 1/M (relative, absolute for M = 1) and of α/M (relative)."""
    theory = 1 - 1 / workers
    return abs(fit.momentum - theory) / (theory or 1.0), abs(fit.step * workers - 1)


def _row(workers: int, one: Observed, turn: Fit) -> list[float]:
    fit, (momentum, step) = one.fit, one.errors
    row = [workers, 1 - 1 / workers, fit.momentum, momentum, 1 / workers, fit.step, step, fit.apart]
    return [*row, turn.momentum, turn.step, turn.apart, largest_stable(0.0, workers - 1)]


def _draw(found: dict[int, Observed], turns: dict[int, Observed]) -> Figure | None:
    momentum, step, *trajectories = panels(4, 2, (10.0, 7.8))
    labelled(momentum, "Momentum of the whole system", "workers M", "fitted momentum", xscale="log")
    labelled(step, "Effective step", "workers M", "fitted step / α", xscale="log", yscale="log")
    at, dense = list(found), np.geomspace(1, max(found), 100)
    for panel, theory, name, words in (
        (momentum, 1 - 1 / dense, "momentum", "1 − 1/M"),
        (step, 1 / dense, "step", "1/M"),
    ):
        panel.plot(dense, theory, color=GREY, linewidth=1.5, label=words)
        for group, mark, label in ((found, "o", "memoryless"), (turns, "x", "round-robin")):
            fits = [getattr(one.fit, name) for one in group.values()]
            panel.plot(at, fits, mark, color=COLOURS[mark == "x"], label=label)
        panel.set_xticks(at, [str(m) for m in at])
        panel.minorticks_off()
        legend(panel)
    for panel, one, title in (
        (trajectories[0], found[_SHOWN], f"Memoryless, M = {_SHOWN}: mean of x_t"),
        (trajectories[1], turns[_SHOWN], f"Round-robin, M = {_SHOWN}: x_t"),
    ):
        labelled(panel, title, "update t", "x_t")
        theory = expected(_SHOWN, one.gains, one.x.shape[1] - 1)
        for index, gain in enumerate(one.gains):
            panel.plot(one.x[index], label=f"αh = {gain:.2g}", **style(index))
            panel.plot(np.arange(0, theory.shape[1], 4), theory[index, ::4], ".", color=COLOURS[index])
        panel.plot([], [], ".", color=GREY, label="1 − 1/M and α/M")
        legend(panel)
    return momentum.get_figure(root=True)


def _cost(scale: Scale) -> str:
    return "seconds on one core" if scale == "small" else "a few minutes on one core"


IMPLICIT_MOMENTUM = Reproduction("implicit-momentum", QUESTION, run, _cost)
