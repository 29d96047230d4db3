"""Who takes part in the zero-tuning suite: tuned baselines, published rules, the article's loop, and the default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from launch.lab.contenders import ADAM, BETAS, DEFAULT, MU, RATE, Contender, Settings, by_gain, constant, product
from launch.lab.contenders import yellowfin as untuned_yellowfin
from launch.lab.finding import Scale
from launch.lab.suite_tasks import Setting
from psserver.errors import ConfigurationError

DEFAULT_OPEN, SGD = "default, loop open", "SGD"
BASELINES = (SGD, ADAM)

OPEN_SETTINGS: Settings = {"tuner.loop": "open"}
"""What makes the default run with its loop open."""

# Everything that a default may come to change. All contenders but the default say it themselves, so that their points
# stay what they are when it does.
_PINNED: Settings = {
    "rule.beta2": 0.999,
    "rule.staleness": "none",
    "tuner.momentum": 0.9,
    "tuner.lr_factor": 1.0,
    "tuner.warmup": 0,
    "tuner.beta": 0.999,
    "tuner.window": 20,
    "tuner.smoothing": "none",
    "tuner.clip": True,
    "tuner.estimator": "median",
    "tuner.gain": 0.01,
    "tuner.momentum_min": -0.9,
    "tuner.momentum_max": 0.999,
    "tuner.sample": 2048,
    "tuner.history": 256,
    "tuner.robust": False,
    "tuner.every": 1,
    "tuner.beside": [],
    "tuner.curvature": "gradient-norm",
    "tuner.curvature_every": 20,
    "tuner.distance_by": "gradients",
    "tuner.distance_every": 20,
}

_SOAP: Settings = {
    "rule.beta2": 0.95,
    "rule.shampoo_beta": 0.98,
    "rule.precondition_every": 10,
    "rule.precondition_limit": 64,
    "rule.precondition_values": 2_000_000,
}


@dataclass(frozen=True)
class Published:
    """A published rule with a learning rate of its own, sought about that of a tuned baseline.

    settings: what makes it.   about: the baseline's label.   factors: of that baseline's gain α / (1 − μ), to try.
    momentum: its own, None for the baseline's.
    """

    label: str
    settings: Settings
    about: str = SGD
    factors: tuple[float, ...] = (1 / 3, 1.0, 3.0)
    momentum: float | None = None

    def contender(self, best: Settings) -> Contender:
        """It, with the learning rates to try when `best` is the baseline's setting."""
        momentum = best[MU] if self.momentum is None else self.momentum
        # Adam divides by its gradients, and its learning rate is not a gain.
        gain = best[RATE] if self.about == ADAM else best[RATE] / (1 - best[MU]) * (1 - momentum)
        rates = [float(f"{gain * factor:.4g}") for factor in self.factors]
        settings = {**_PINNED, "rule.name": "momentum_sgd", "tuner.target": "constant", "tuner.loop": "open"}
        return Contender(self.label, {**settings, **self.settings}, product(rates, (momentum,)))


# A rule may be added, changed or left out here. Those which this version does not know are left out of the runs, and
# the table says so.
PUBLISHED: tuple[Published, ...] = (
    # Divided by the staleness, which is M − 1 on average, a rate must be about as many times larger.
    Published("staleness-aware α/τ", {"rule.staleness": "inverse"}, factors=(3.0, 9.0, 27.0)),
    Published("DC-ASGD", {"rule.staleness": "delay-compensated"}),
    Published("Gap-Aware", {"rule.staleness": "gap-aware"}, factors=(1.0, 3.0, 9.0)),
    Published("DANA-Slim", {"rule.name": "dana_slim"}, momentum=0.9),
    Published("OrMo", {"rule.name": "ormo"}, momentum=0.9),
    Published("Ringmaster", {"rule.staleness": "threshold", "rule.delay_threshold": 8}),
    Published("schedule-free", {"rule.name": "schedule_free_adamw"}, about=ADAM, momentum=0.9),
    # With what the default gives its rule, so that the two differ in target, loop and nothing else.
    Published("SOAP", {"rule.name": "soap", **_SOAP}, about=ADAM),
)

GROUPS = ("baselines", "published", "yellowfin", "default", "open")
"""Contenders that can be asked for by `--only` and `--afresh`; the baselines always take part."""


def baselines(setting: Setting, scale: Scale) -> list[Contender]:
    """SGD and Adam over grids that are wide enough for this setting."""
    betas = BETAS if scale == "small" else (-0.5, -0.3, 0.0, 0.3, 0.5, 0.7, 0.9)
    rates = setting.task.rates if scale == "small" else (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
    return [
        constant(SGD, "momentum_sgd", by_gain(setting.gains(scale), betas), **_PINNED),
        constant(ADAM, "adam", product(rates, betas), "β1", **_PINNED),
    ]


def untuned(groups: Sequence[str], setting: Setting) -> list[Contender]:
    """What runs as it is in a setting, of these groups; where something changes the default only."""
    yellowfins = [untuned_yellowfin("open"), untuned_yellowfin("closed")]
    fixed = {**_PINNED, "rule.name": "momentum_sgd"}
    found = {
        "yellowfin": [replace(one, settings={**fixed, **one.settings}) for one in yellowfins],
        "default": [Contender(DEFAULT, {})],
        "open": [Contender(DEFAULT_OPEN, OPEN_SETTINGS)],
    }
    return [
        one
        for group, contenders in found.items()
        if group in groups and (setting.steady or group != "yellowfin")
        for one in contenders
    ]


def published(setting: Setting, scale: Scale) -> list[Published]:
    """The published rules that take part in a setting: at small scale with sixteen workers only."""
    return list(PUBLISHED) if setting.steady and setting.workers >= (16 if scale == "small" else 4) else []


def why_unknown(setting: Setting, contender: Contender) -> str:
    """Why this version cannot run a contender; "" when it can."""
    try:
        setting.arena.experiment({**contender.settings, **contender.candidates[0]}, 1)
    except ConfigurationError as error:
        return str(error)
    return ""
