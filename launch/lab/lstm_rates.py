"""lstm-rates: variable by variable, a real LSTM near its minimum converges at about √μ once μ is high enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from launch.lab.drive import Numbers, Vector, constant, drive
from launch.lab.finding import Finding, Lab, Reproduction, Scale, Table
from launch.lab.picture import COLOURS, GREY, labelled, legend, panels, style
from worker.zoo.lstm import LanguageModel
from worker.zoo.text_data import tinyshakespeare

QUESTION = "Do the variables of a real LSTM converge at √μ, whatever their curvature, once μ is high enough?"
MOMENTA = (0.5, 0.9, 0.98, 0.99, 0.995)
_RATE = 0.4  # α
_DECAY = 0.002  # weight decay, so that there is a minimum to converge to
_SEARCH = 0.97  # μ of the search for the minimum
_KICK = 0.1  # ‖x_0 − minimum‖
_ELSEWHERE = 5000  # where the other passage begins
_FOLDS = 20  # a run lasts until √μ^t = e^−20
_EARLY, _LATE = (0, 5), (2.5, 10)  # rates are fitted between these powers of 1/e of √μ^t
_SHOWN = 40


class Passage:
    """Loss gradients of a character LSTM on fixed passages of TinyShakespeare, read from a zero state: no noise.

    size: N.   The alphabet is that of the first passage; any other character of another one counts as the first.
    """

    def __init__(self, hidden: int, sequence: int, batch: int, seed: int = 1) -> None:
        self._shape = batch, sequence
        self._alphabet = sorted(set(self._text(0)))
        torch.manual_seed(seed)
        self._model = LanguageModel(len(self._alphabet), hidden, layers=1)
        self._parameters = list(self._model.parameters())
        self._batch = self._tokens(0)
        self.initial: Vector = parameters_to_vector(self._parameters).detach().numpy().copy()

    @property
    def size(self) -> int:
        """Number of parameters."""
        return int(self.initial.size)

    def gradient(self, x: Vector) -> Vector:
        """∇ of the mean loss over the first passage at x [N], without weight decay."""
        return self._gradient(x, self._batch)

    def elsewhere(self, x: Vector, start: int) -> Vector:
        """The same over a passage that starts at another character."""
        return self._gradient(x, self._tokens(start))

    def loss(self, x: Vector) -> float:
        """Mean loss over the first passage in nats a character."""
        with torch.no_grad():
            return float(self._loss(x, self._batch))

    def _gradient(self, x: Vector, tokens: Tensor) -> Vector:
        parts = torch.autograd.grad(self._loss(x, tokens), self._parameters)
        flat: Vector = torch.cat([part.flatten() for part in parts]).numpy()
        return flat

    def _loss(self, x: Vector, tokens: Tensor) -> Tensor:
        vector_to_parameters(torch.from_numpy(x.copy()), self._parameters)
        batch, sequence = self._shape
        inputs, targets = (part.view(batch, sequence) for part in (tokens[:-1], tokens[1:]))
        return self._model.loss(inputs, targets, self._model.fresh_state(batch))[0]

    def _text(self, start: int) -> str:
        return tinyshakespeare()[start : start + self._shape[0] * self._shape[1] + 1]

    def _tokens(self, start: int) -> Tensor:
        known = {character: number for number, character in enumerate(self._alphabet)}
        return torch.tensor([known.get(character, 0) for character in self._text(start)])


@dataclass(frozen=True)
class Convergence:
    """What every variable did under one μ.

    distance: |x_i(t) − x_i(T)| of some variables, [T, shown].
    rates:    of every variable at first, [N].   late: the same further on.
    """

    momentum: float
    distance: Numbers
    rates: Numbers
    late: Numbers

    def speeds(self, rates: Numbers) -> Numbers:
        """(1 − rate)/(1 − √μ): 1 follows √μ, 0 does not converge."""
        return (1 - rates) / (1 - math.sqrt(self.momentum))

    def share(self, rates: Numbers) -> float:
        """Part of the variables whose speed is between a half and one and a half."""
        return float(np.mean(np.abs(self.speeds(rates) - 1) <= 0.5))


def converge(passage: Passage, start: Vector, momentum: float) -> Convergence:
    """Follow the real server from `start` with constant α and μ; x* is the last version."""
    updates = math.ceil(-_FOLDS / math.log(math.sqrt(momentum)))
    x = drive(start, passage.gradient, constant(_RATE, momentum), [0] * updates, weight_decay=_DECAY)
    distance = np.abs(x[:-1] - x[-1].astype(float))
    some = np.linspace(0, passage.size - 1, _SHOWN).astype(int)
    rates, late = (_rates(distance, [round(updates * fold / _FOLDS) for fold in folds]) for folds in (_EARLY, _LATE))
    return Convergence(momentum, distance[:, some], rates, late)


def _rates(distance: Numbers, window: list[int]) -> Numbers:
    part = np.log(np.maximum(distance[window[0] : window[1]], 1e-12))
    slopes: Numbers = np.polyfit(np.arange(len(part)), part, 1)[0]
    return np.exp(slopes)


def kicked(passage: Passage, updates: int) -> tuple[Vector, Vector]:
    """A minimum, found through the server from a fresh model, and a start beside it.

    The start is one gradient step on another passage away, `_KICK` long.
    """
    found = drive(passage.initial, passage.gradient, constant(_RATE, _SEARCH), [0] * updates, weight_decay=_DECAY)[-1]
    other = passage.elsewhere(found, _ELSEWHERE)
    return found, (found - _KICK * other / np.linalg.norm(other)).astype(np.float32)


def run(lab: Lab) -> Finding:
    """Compute, draw and judge."""
    passage = Passage(8, 12, 4) if lab.scale == "small" else Passage(32, 25, 10)
    search = 8000 if lab.scale == "small" else 40_000
    minimum, start = kicked(passage, search)
    slope = float(np.linalg.norm(passage.gradient(minimum) + _DECAY * minimum))
    found = [converge(passage, start, momentum) for momentum in MOMENTA]
    quantiles = (0.05, 0.25, 0.5, 0.75, 0.95)
    rows = [
        [
            c.momentum,
            math.sqrt(c.momentum),
            *np.quantile(c.rates, quantiles).tolist(),
            c.share(c.rates),
            c.share(c.late),
        ]
        for c in found
    ]
    columns = ["μ", "√μ", "rate: 5 %", "25 %", "median", "75 %", "95 %", "variables at about √μ", "the same, later"]
    names = ["momentum", "root", "rate_5", "rate_25", "rate_50", "rate_75", "rate_95", "share", "share_later"]
    every = [[c.momentum, i, rate] for c in found for i, rate in enumerate(c.rates.tolist())]
    return Finding(
        name="lstm-rates",
        title="Convergence of each variable of an LSTM",
        question=QUESTION,
        agrees=found[-1].share(found[-1].rates) >= 0.5 > found[0].share(found[0].rates),
        sentence=_sentence(found),
        table=Table(columns, rows),
        data={"quantiles": Table(names, rows), "variables": Table(["momentum", "variable", "rate"], every)},
        figure=_draw(found),
        notes=[
            "At about √μ: 1 − rate is within half of 1 − √μ. Rates are slopes of log |x_i(t) − x_i*| while √μ^t falls "
            "from 1 to e^−5, later from e^−2.5 to e^−10; x* is the last version of that run, at e^−20.",
            f"Character LSTM on one passage of TinyShakespeare, whole-batch gradients, α = {_RATE}, weight decay "
            f"{_DECAY}, real server. Start: {_KICK} from the minimum of {search:,} updates (loss "
            f"{passage.loss(minimum):.3f}, gradient norm {slope:.0e}), along the gradient of another passage.",
            "Small μ are slow because most curvatures lie below the robust region of this α. An LSTM's minimum has "
            "flat directions even with weight decay; what moved along them stays, and is what is left later.",
        ],
    )


def _sentence(found: list[Convergence]) -> str:
    low, high = found[0], found[-1]
    shares = ", ".join(f"{100 * one.share(one.rates):.0f} %" for one in found)
    return (
        f"The part of {len(high.rates):,} variables that converge at about √μ is {shares} for μ = "
        f"{', '.join(f'{one.momentum:g}' for one in found)}; with μ = {high.momentum:g} the median rate is "
        f"{np.median(high.rates):.4f} (√μ = {math.sqrt(high.momentum):.4f}), with μ = {low.momentum:g} it is "
        f"{np.median(low.rates):.3f} (√μ = {math.sqrt(low.momentum):.3f}). That is near a minimum and while √μ^t falls "
        f"to e^−5; later it is {100 * high.share(high.late):.0f} % with μ = {high.momentum:g}."
    )


def _draw(found: list[Convergence]) -> Figure | None:
    speeds, *rest = panels(4, 2, (10.0, 7.8))
    labelled(speeds, "Share of variables by rate", "(1 − rate) / (1 − √μ)", "share of variables below")
    for index, one in enumerate(found):
        speeds.plot(
            np.sort(one.speeds(one.rates)),
            np.linspace(0, 1, len(one.rates)),
            label=f"μ = {one.momentum:g}",
            **style(index),
        )
    speeds.axvline(1, color=GREY, linestyle="--", label="rate = √μ")
    speeds.set_xlim(-0.5, 1.75)
    for panel, one in zip(rest, (found[1], found[-2], found[-1]), strict=True):
        labelled(panel, f"μ = {one.momentum:g}", "update t", "|x_i(t) − x_i*|", yscale="log")
        half = one.distance[: len(one.distance) // 2]
        t = np.arange(len(half))
        panel.plot(t, np.maximum(half, 1e-9), color=GREY, linewidth=0.4, alpha=0.6)
        level = float(np.median(one.distance[0]))
        line = level * math.sqrt(one.momentum) ** t
        panel.plot(t, line, color=COLOURS[1], linewidth=2, label="√μ^t")
        panel.set_ylim(1e-8, 1)
        panel.legend(frameon=False, loc="lower left")
    legend(speeds, fontsize=9)
    return speeds.get_figure(root=True)


def _cost(scale: Scale) -> str:
    return "about a minute on one core" if scale == "small" else "about half an hour on one core"


LSTM_RATES = Reproduction("lstm-rates", QUESTION, run, _cost)
