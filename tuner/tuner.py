"""The tuner: a target × a loop × the total-momentum estimator, as one object the server talks to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tuner.distance import LearntDistance
from tuner.estimator import Estimator
from tuner.guard import Guard
from tuner.lag import Lag
from tuner.layers import Strides
from tuner.loop import Clamp, Loop, OneActuator, Open, Pull
from tuner.target import State, Target
from tuner.total_momentum import TotalMomentum
from tuner.yellowfin import YellowFinTarget


@dataclass(frozen=True)
class Settings:
    """What one update uses.

    learning_rate:   α, the user's factor included.
    momentum:        μ, the loop's answer.
    target_momentum: μ*.
    scale:           in (0, 1]: what clipping multiplies the gradient by.
    gradient_norm:   ‖g‖ before clipping, weight decay included.
    strides:         what α is multiplied by in each layer; None for 1 everywhere. Only rules of Adam's kind know them.
    pull:            how much of the way since x_v is taken back; None for nothing. Only `psserver.soap` does so.
    """

    learning_rate: float
    momentum: float
    target_momentum: float
    scale: float
    gradient_norm: float
    strides: Strides | None = None
    pull: Pull | None = None


class Tuner:
    """Chooses the settings of every update and measures what came of them.

    For each gradient: `look` at its blocks, `decide`, `absorb` its blocks, make version t + 1, `record` it, `measure`.
    Version 0 is recorded before the first gradient. Knows no sockets, files or clocks, and draws no random numbers
    after it was built.

    beside: estimators that are measured, too, and steer nothing; all sample the same coordinates. guard: its factor
    multiplies α. every: k, total momentum is measured at every k-th update only.
    """

    def __init__(
        self,
        target: Target,
        loop: Loop,
        estimator: Estimator,
        lr_factor: float = 1.0,
        *,
        beside: Mapping[str, Estimator] | None = None,
        guard: Guard | None = None,
        every: int = 1,
    ) -> None:
        self.target, self.loop, self.estimator = target, loop, estimator
        self.lr_factor = lr_factor
        self.beside, self.guard = dict(beside or {}), guard
        self.measured_beside: dict[str, float | None] = {}
        self._every, self._count = every, 0
        self._newest = self._staleness = 0
        self._learning_rate = 0.0
        self._momentum = 0.0
        self._target_momentum = 0.0
        self._strides: Strides | None = None
        self._layer_of_sampled: Tensor | None = None

    @property
    def clamped(self) -> Clamp | None:
        """Whether the loop's clamp held μ back at the last measurement, and at which end."""
        return self.loop.clamped

    @property
    def needs_origin(self) -> bool:
        """Whether the target compares with the version a gradient was computed at, which must then still be kept."""
        return isinstance(self.target, LearntDistance)

    def hear(self, loss: float, staleness: int = 0) -> None:
        """Take loss and staleness of the gradient about to be looked at; without, α may depend on the loss's scale."""
        self._staleness = staleness
        known = 0 if isinstance(self.loop, Open) else staleness  # whatever answers to staleness is the loop's
        self.target.hear(loss, known)

    def look(self, block: slice, gradient: Tensor, origin: Tensor | None = None) -> None:
        """Take sums over one block of the gradient [length of block], weight decay included; origin: see `Target`."""
        self.target.look(block, gradient, origin)

    def look_curvature(self, h_max: float, h_mean: float) -> None:
        """Take what the worker measured at the same gradient, weight decay included; see `Target`."""
        self.target.look_curvature(h_max, h_mean)

    def look_distance(self, length: float) -> None:
        """Take where the worker found the same gradient's loss least along −g; only YellowFin's target goes by it."""
        if isinstance(self.target, YellowFinTarget):
            self.target.look_distance(length)

    def decide(self) -> Settings:
        """Choose for the gradient just looked at.

        Raises NonFiniteGradient, with the state as if that gradient had never been seen; RuntimeError before any look.
        """
        staleness, self._staleness = self._staleness, 0
        decision = self.target.decide()
        rate, target = decision.learning_rate, decision.momentum
        if self.guard is not None:
            rate, target = self.guard.hold(decision)
        self._target_momentum = target
        self._momentum = self.loop.momentum(target)
        self._learning_rate = self.loop.rate(rate, decision.floor) * self.lr_factor
        self._strides = decision.strides
        return Settings(
            learning_rate=self._learning_rate,
            momentum=self._momentum,
            target_momentum=target,
            scale=decision.scale,
            gradient_norm=decision.gradient_norm,
            strides=decision.strides,
            pull=self.loop.pull(staleness),
        )

    def absorb(self, block: slice, gradient: Tensor) -> None:
        """Take one block of the same gradient, not yet scaled, into the running averages."""
        self.target.absorb(block, gradient)

    def record(self, version: int, parameters: Tensor) -> Tensor:
        """Remember the sampled coordinates of a version [N], made with the settings last decided; returns them [K]."""
        sampled = self.sample(parameters)
        self._newest = version
        for one in (self.estimator, *self.beside.values()):
            one.record(version, sampled, self._learning_rate, self._momentum)
        if self.guard is not None:
            self.guard.record(version, sampled, self._learning_rate, self._momentum)
        return sampled

    def sample(self, vector: Tensor) -> Tensor:
        """The coordinates [K] of a vector [N] over which total momentum is measured."""
        return self._sampler.sample(vector)

    def measure(self, version: int, applied: Tensor) -> float | None:
        """μ̂_T at the version a gradient was computed at, fed to the loop; None when it cannot be measured.

        applied: [K], that gradient as it was applied: scaled, with weight decay; preconditioned for Adam; not yet with
        the strides of the update just made.
        """
        applied = self._in_strides(applied)
        turn, self._count = self._count % self._every, self._count + 1
        if self.guard is not None and (turn == 0 or turn == self._every - 1):  # it compares one gradient with the next
            self.guard.observe(version, applied)
        staleness = self._newest - 1 - version
        if turn:
            self.measured_beside = dict.fromkeys(self.beside)
            self.loop.weigh(staleness, None)
            return None
        measured = self.estimator.measure(version, applied)
        self.measured_beside = {name: one.measure(version, applied) for name, one in self.beside.items()}
        self.loop.observe(self._target_momentum, measured)
        self.loop.weigh(staleness, self._excess(version, applied) if staleness else None)
        return measured

    def _excess(self, version: int, applied: Tensor) -> float | None:
        if isinstance(self.loop, OneActuator) or not isinstance(self.estimator, TotalMomentum):
            return None  # nobody asks
        return self.estimator.excess(version, applied)

    def _in_strides(self, applied: Tensor) -> Tensor:
        if self._strides is None:
            return applied
        if self._layer_of_sampled is None:
            self._layer_of_sampled = self._strides.layers.numbers(self.sample)
        return applied * applied.new_tensor(self._strides.factors)[self._layer_of_sampled]

    @property
    def _sampler(self) -> Estimator | Guard:
        """One that samples, if any does."""
        sampling = [one for one in (self.estimator, *self.beside.values()) if not isinstance(one, Lag)]
        return sampling[0] if sampling else self.guard or self.estimator

    def state_dict(self) -> State:
        """Everything that a bit-exact continuation needs; shares no memory with the tuner."""
        return {
            "target": self.target.state_dict(),
            "loop": self.loop.state_dict(),
            "estimator": self.estimator.state_dict(),
            **{f"beside_{name}": one.state_dict() for name, one in self.beside.items()},
            **({} if self.guard is None else {"guard": self.guard.state_dict()}),
            "count": self._count,
            "lr_factor": self.lr_factor,
            "learning_rate": self._learning_rate,
            "momentum": self._momentum,
            "target_momentum": self._target_momentum,
            "newest": self._newest,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict`'s answer. Raises ValueError when it is of another size."""
        self.target.load_state_dict(state["target"])
        self.loop.load_state_dict(state["loop"])
        self.estimator.load_state_dict(state["estimator"])
        for name, one in self.beside.items():
            if f"beside_{name}" in state:
                one.load_state_dict(state[f"beside_{name}"])
        if self.guard is not None and "guard" in state:
            self.guard.load_state_dict(state["guard"])
        self._layer_of_sampled = None
        self._count = int(state.get("count", 0))
        self.lr_factor = float(state["lr_factor"])
        self._learning_rate = float(state["learning_rate"])
        self._momentum = float(state["momentum"])
        self._target_momentum = float(state["target_momentum"])
        self._newest = int(state.get("newest", 0))
