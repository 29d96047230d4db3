"""From options to a tuner."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tuner.beyond import Beyond
from tuner.both import Both
from tuner.constant import Constant
from tuner.distance import LearntDistance
from tuner.estimator import Estimator
from tuner.guard import Guard
from tuner.lag import Lag
from tuner.line_search import ByWorkers
from tuner.loop import Closed, Loop, Open
from tuner.options import TunerOptions
from tuner.regression import Regression
from tuner.schedule import Cosine, Step
from tuner.target import Target
from tuner.total_momentum import TotalMomentum
from tuner.tuner import Tuner
from tuner.yellowfin import YellowFinTarget


def build(
    options: TunerOptions,
    size: int,
    updates: int,
    seed: int,
    layers: tuple[int, ...] = (),
    weight_decay: float = 0.0,
    embeddings: tuple[int, ...] = (),
    fans: tuple[int, ...] = (),
    sampled: Tensor | None = None,
    turned: float = 0.0,
) -> Tuner:
    """The tuner that `options` describe, for N = `size` parameters and a run of `updates`; `seed` draws the sample.

    sampled: the sample's coordinates (int64 [K], rising), where they are not to be drawn from all alike. turned: how
    much of the parameters have gradients that the rule turns into an eigenbasis.

    layers: how many of the parameters each layer has, in their order; without it they are one layer. weight_decay: λ,
    if λx is part of the gradients that the tuner will see. embeddings: which of the layers are. fans: their fan-in, 0
    where a layer has none. Raises ValueError for a size below 1, for layers that do not add up to it, for embeddings
    that are none of them, and for another number of fans.
    """
    if size < 1:
        raise ValueError(f"size: expected at least 1 parameter, got {size}")
    sample = options.sample if sampled is None else sampled
    guarded = options.target == "yellowfin" and options.robust
    return Tuner(
        _target(options, size, updates, layers, weight_decay, embeddings, fans),
        _loop(options, turned),
        _estimator(options.estimator, options, size, sample, seed),
        options.lr_factor,
        beside={name: _estimator(name, options, size, sample, seed) for name in options.beside},
        guard=Guard(size, sample=sample, history=options.history, seed=seed) if guarded else None,
        every=options.every,
    )


def _target(
    options: TunerOptions,
    size: int,
    updates: int,
    layers: tuple[int, ...],
    weight_decay: float,
    embeddings: tuple[int, ...],
    fans: tuple[int, ...],
) -> Target:
    rate, momentum, warmup = options.learning_rate, options.momentum, options.warmup
    match options.target:
        case "distance":
            return LearntDistance(
                size,
                momentum=momentum,
                updates=updates,
                layers=layers,
                weight_decay=weight_decay,
                embeddings=embeddings,
                fans=fans,
            )
        case "yellowfin":
            return YellowFinTarget(
                size,
                beta=options.beta,
                window=options.window,
                smoothing=options.smoothing,
                clip=options.clip,
                robust=options.robust,
                every=options.every,
                by_workers=ByWorkers(options.measure_every, options.search_every),
            )
        case "constant":
            return Constant(rate, momentum)
        case "step":
            return Step(rate, momentum, milestones=options.milestones, decay=options.decay, warmup=warmup)
        case "cosine":
            return Cosine(rate, momentum, updates=updates, warmup=warmup)


def _loop(options: TunerOptions, turned: float) -> Loop:
    match options.loop:
        case "open":
            return Open()
        case "closed":
            return Closed(options.gain, options.momentum_min, options.momentum_max)
        case "both":
            if options.target == "distance":
                return Beyond(options.momentum_min, options.momentum_max, turned)
            return Both(options.momentum_min, options.momentum_max)


def _estimator(
    name: Literal["median", "lag", "regression"], options: TunerOptions, size: int, sample: int | Tensor, seed: int
) -> Estimator:
    match name:
        case "lag":
            return Lag()
        case "regression":
            return Regression(size, sample=sample, history=options.history, seed=seed)
        case "median":
            return TotalMomentum(size, sample=sample, history=options.history, seed=seed)
