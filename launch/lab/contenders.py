"""Who is compared: each method with its fixed settings and the grid it is tuned over."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from launch.lab.finding import Scale

Settings: TypeAlias = dict[str, Any]
RATE, MU = "tuner.learning_rate", "tuner.momentum"
ADAM_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
BETAS = (-0.5, 0.0, 0.5, 0.9)
_DECAY = {"rule.weight_decay": 0.01}
# What defaults have come to say otherwise: the methods as published, whose points stay what they are.
_ALWAYS = {"rule.beta2": 0.999, "tuner.robust": False}
_SYMBOLS = {RATE: "α", MU: "μ"}


@dataclass(frozen=True)
class Contender:
    """A method.

    label: its name in tables.   settings: what is fixed, dotted key -> value.   candidates: what is tuned over: the
    settings of each try, one empty one when nothing is tuned.   momentum: the letter of its momentum.
    """

    label: str
    settings: Settings
    candidates: tuple[Settings, ...] = field(default=({},))
    momentum: str = "μ"

    def words(self, chosen: Settings) -> str:
        """A candidate as people write it."""
        symbols = {**_SYMBOLS, MU: self.momentum}
        found = [f"{symbols.get(key, key)} {value:g}" for key, value in chosen.items()]
        return ", ".join(found).replace("-", "−") or "nothing tuned"

    def at_edge(self, chosen: Settings) -> bool:
        """Whether the learning rate chosen is the lowest or highest that was tried with the other settings chosen."""
        others = {key: value for key, value in chosen.items() if key != RATE}
        rates = [c[RATE] for c in self.candidates if RATE in c and others.items() <= c.items()]
        return len(rates) > 1 and chosen[RATE] in (min(rates), max(rates))


def product(rates: Sequence[float], momenta: Sequence[float] = ()) -> tuple[Settings, ...]:
    """Every learning rate with every momentum; the momentum is left to the settings when there is none."""
    if not momenta:
        return tuple({RATE: rate} for rate in rates)
    return tuple({MU: mu, RATE: rate} for mu, rate in itertools.product(momenta, rates))


def by_gain(gains: Sequence[float], momenta: Sequence[float]) -> tuple[Settings, ...]:
    """Every momentum μ with learning rates α of equal gain α / (1 − μ): what a gradient moves in the end."""
    pairs = itertools.product(momenta, gains)
    return tuple({MU: mu, RATE: round(gain * (1 - mu), 6)} for mu, gain in pairs)


def constant(label: str, rule: str, candidates: tuple[Settings, ...], letter: str = "μ", **more: Any) -> Contender:
    """A rule with fixed numbers, tuned over `candidates`. letter: of its momentum.   more: further fixed settings."""
    fixed = {**_ALWAYS, "rule.name": rule, "tuner.target": "constant", "tuner.loop": "open", **more}
    return Contender(label, fixed, candidates, letter)


def _closed(label: str, rule: str, candidates: tuple[Settings, ...]) -> Contender:
    """The user's own target, held by the loop."""
    fixed = {**_ALWAYS, "rule.name": rule, "tuner.target": "constant", "tuner.loop": "closed"}
    return Contender(label, fixed, candidates, "μ*")


ADAM, MOMENTUM, OPEN, CLOSED, LAG = "Adam", "momentum SGD", "YellowFin, open", "YellowFin, closed", "YellowFin, by lag"
CLOSED_SGD, CLOSED_ADAM, DEFAULT = "closed-loop SGD", "closed-loop Adam", "default"


def yellowfin(loop: str = "open", estimator: str = "median") -> Contender:
    """YellowFin, with nothing to be tuned."""
    label = OPEN if loop == "open" else CLOSED if estimator == "median" else LAG
    published = {**_ALWAYS, "rule.name": "momentum_sgd", "tuner.target": "yellowfin", MU: 0.9}
    return Contender(label, {**published, "tuner.loop": loop, "tuner.estimator": estimator})


def synchronous(scale: Scale, recurrent: bool) -> list[Contender]:
    """Adam and momentum SGD, tuned as in the article, and YellowFin. recurrent: LSTMs want larger steps of SGD."""
    adam = (1e-4, 1e-3, 1e-2, 1e-1, 1.0) if scale == "paper" else ADAM_RATES
    sgd = (1e-3, 1e-2, 1e-1) if scale == "paper" else (0.1, 0.3, 1.0, 3.0) if recurrent else (0.01, 0.03, 0.1, 0.3)
    return [
        constant(ADAM, "adam", product(adam, (0.9,)), "β1"),
        constant(MOMENTUM, "momentum_sgd", product(sgd, (0.9,))),
        yellowfin(),
    ]


def adam(betas: Sequence[float], scale: Scale) -> Contender:
    """Adam over learning rates, at these β1."""
    rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2) if scale == "paper" else ADAM_RATES[:4]
    return constant(ADAM, "adam", product(rates, betas), "β1")


def closed_adam(targets: Sequence[float], scale: Scale) -> Contender:
    """Adam whose total momentum is held at a constant target."""
    rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2) if scale == "paper" else (1e-3, 3e-3, 1e-2)
    return _closed(CLOSED_ADAM, "adam", product(rates, targets))


def baselines(scale: Scale) -> list[Contender]:
    """Everything the asynchronous comparison has, each over a grid wide enough for both settings."""
    fine = scale == "paper"
    gains = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0) if fine else (0.1, 0.3, 1.0)
    momenta = (-0.5, -0.3, 0.3, 0.5, 0.9, 0.99) if fine else (-0.5, 0.5, 0.9, 0.99)
    betas = (-0.5, -0.3, 0.0, 0.3, 0.5, 0.9) if fine else BETAS
    rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2) if fine else ADAM_RATES[:3]
    return [
        constant("SGD", "momentum_sgd", by_gain(gains, (0.0,))),
        constant(MOMENTUM, "momentum_sgd", by_gain(gains, momenta)),
        constant("Nesterov", "nesterov", by_gain(gains, (0.5, 0.9) if fine else (0.9,))),
        constant("RMSProp", "rmsprop", product(rates, (0.0,))),
        constant("Adagrad", "adagrad", product([10 * rate for rate in rates], (0.0,))),
        adam(betas, scale),
        constant("AdamW", "adamw", product(rates[-4 if fine else -2 :], (0.0, 0.9)), "β1", **_DECAY),
        yellowfin("open"),
        yellowfin("closed"),
        yellowfin("closed", "lag"),
        _closed(CLOSED_SGD, "momentum_sgd", by_gain(gains, (0.5, 0.9))),
        closed_adam((0.5, 0.9), scale),
        Contender(DEFAULT, {}),
    ]
