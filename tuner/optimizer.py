"""YellowFin as a `torch.optim.Optimizer`, in displacement form: no learning rate and no momentum to choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from tuner.loop import Closed, Loop, Open
from tuner.lr_factor import LearningRateFactor
from tuner.options import TunerOptions
from tuner.target import State
from tuner.total_momentum import TotalMomentum
from tuner.tuner import Settings, Tuner
from tuner.yellowfin import YellowFinTarget

Group = dict[str, Any]


class YellowFin(torch.optim.Optimizer):
    """`x_{t+1} = x_t + μ (x_t − x_{t−1}) − f α s g`, with α, μ and the clipping scale s from all gradients together.

    params:       tensors, or groups of them; a group may have its own `lr_factor` and `weight_decay`.
    lr_factor:    f, multiplies the tuned α. Schedulers drive it: `StepLR(optimizer.lr_factor, 30)`.
    weight_decay: λ of the λx that is added to every gradient before anything looks at it.
    beta, window, smoothing, clip: as in `YellowFinTarget`.
    closed_loop:  steer the measured total momentum to μ*. Worth it where gradients arrive late: tell `step` the version
                  each was computed at. When none is late this is μ* itself, followed slowly from 0.

    After each `step()`, every group's "lr" (f α) and "momentum" (μ) are what that step used, `settings` holds all of
    it, and `total_momentum` what the closed loop measured, if anything; before the first step they are 0 and None.
    Parameters without a gradient stay where they are and count as zero in the statistics. The host waits for the
    device once per step (and once more in the closed loop). Parameters below single precision are moved in single
    precision and rounded once. Sparse and complex gradients are refused (ValueError).

    Source: Zhang and Mitliagkas, "YellowFin and the art of momentum tuning" (2019). Raises ValueError for an option
    outside its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr_factor: float = 1.0,
        weight_decay: float = 0.0,
        beta: float = 0.999,
        window: int = 20,
        smoothing: Literal["none", "ema"] = "none",
        clip: bool = True,
        closed_loop: bool = False,
    ) -> None:
        # lr_factor is checked here but applied by group, so the tuner's own stays 1
        self._options = TunerOptions(lr_factor=lr_factor, beta=beta, window=window, smoothing=smoothing, clip=clip)
        self._closed = closed_loop
        self._target = YellowFinTarget(0, beta=beta, window=window, smoothing=smoothing, clip=clip)
        self._tuner = Tuner(self._target, self._loop(), self._estimator(0, 0.0))
        self.lr_factor: LearningRateFactor
        self.settings: Settings | None = None
        self.total_momentum: float | None = None
        self.version = 0
        super().__init__(params, {"lr": 0.0, "momentum": 0.0, "weight_decay": weight_decay})

    def add_param_group(self, param_group: Group) -> None:
        """Add parameters, also in the middle of training; their gradients count as zero until then."""
        group = dict(param_group)
        factor = group.pop("lr_factor", self._options.lr_factor)
        decay = group.get("weight_decay", self.defaults["weight_decay"])
        if not decay >= 0:
            raise ValueError(f"weight_decay: expected a number of at least 0, got {decay!r}")
        super().add_param_group(group)
        factors = {"params": self.param_groups[-1]["params"], "lr": factor}
        if len(self.param_groups) == 1:
            self.lr_factor = LearningRateFactor([factors])
        else:
            self.lr_factor.add_param_group(factors)
        self._target.extend(sum(p.numel() for p in factors["params"]))
        resolution = max(torch.finfo(p.dtype).eps for _, p in self._parameters())
        self._tuner.estimator = self._estimator(sum(p.numel() for _, p in self._parameters()), resolution)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None, *, version: int | None = None
    ) -> float | None:
        """Make one step; returns the closure's loss, when there is a closure.

        version: how many steps had been made when the gradients' parameters were read (closed loop only); all of them
        unless said otherwise. Raises NonFiniteGradient with nothing changed when a gradient is not finite: skip the
        batch, or stop.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        tuner = self._tuner
        gradient = self._gradient()
        whole = slice(0, gradient.numel())
        tuner.look(whole, gradient)
        settings = tuner.decide()
        tuner.absorb(whole, gradient)
        self._by_factor(gradient)
        self._remember()
        self._move(gradient, settings)
        self.version += 1
        self._remember()
        if self._closed:
            computed_at = self.version - 1 if version is None else version
            self.total_momentum = tuner.measure(computed_at, tuner.sample(gradient) * settings.scale)
        self._publish(settings)
        return loss

    def _gradient(self) -> Tensor:
        """All gradients with weight decay, as one new vector [N]; zero where a parameter has none."""
        pieces = []
        for group, p in self._parameters():
            if p.grad is None:
                pieces.append(torch.zeros(p.numel(), dtype=self._dtype, device=p.device))
                continue
            if p.grad.layout != torch.strided or p.grad.is_complex():
                raise ValueError(f"gradient: expected a dense real tensor, got {p.grad.layout}, {p.grad.dtype}")
            piece = p.grad.reshape(-1).to(self._dtype)
            if group["weight_decay"]:
                piece = piece.add(p.reshape(-1), alpha=group["weight_decay"])
            pieces.append(piece)
        return torch.cat(pieces)

    def _by_factor(self, gradient: Tensor) -> None:
        start = 0
        for group, factors in zip(self.param_groups, self.lr_factor.param_groups, strict=True):
            end = start + sum(p.numel() for p in group["params"])
            if factors["lr"] != 1.0:
                gradient[start:end].mul_(factors["lr"])
            start = end

    def _move(self, gradient: Tensor, settings: Settings) -> None:
        params, previous, gradients = [], [], []
        start = 0
        for _, p in self._parameters():
            piece = gradient[start : start + p.numel()]
            start += p.numel()
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["previous"] = p.detach().clone(memory_format=torch.preserve_format)
            params.append(p)
            previous.append(state["previous"])
            gradients.append(piece.view(p.shape))
        if not params:
            return
        moved = torch._foreach_sub([p.to(self._dtype) for p in params], [x.to(self._dtype) for x in previous])
        torch._foreach_mul_(moved, settings.momentum)
        torch._foreach_add_(moved, gradients, alpha=-settings.learning_rate * settings.scale)
        torch._foreach_copy_(previous, params)
        torch._foreach_add_(params, moved)

    def _remember(self) -> None:
        """Record the present version for the estimator, unless it has it."""
        tuner = self._tuner
        if self._closed and not tuner.estimator.holds(self.version):
            tuner.record(self.version, torch.cat([p.reshape(-1).to(self._dtype) for _, p in self._parameters()]))

    def _publish(self, settings: Settings) -> None:
        self.settings = settings
        for group, factors in zip(self.param_groups, self.lr_factor.param_groups, strict=True):
            group["lr"] = settings.learning_rate * float(factors["lr"])
            group["momentum"] = settings.momentum
        self.lr_factor.step()

    def state_dict(self) -> State:
        """torch's own, with the tuner's state and the factors beside it; valid from the beginning on."""
        state = super().state_dict()
        own = {"tuner": self._tuner.state_dict(), "lr_factor": self.lr_factor.state_dict(), "version": self.version}
        return {**state, **own}

    def load_state_dict(self, state_dict: State) -> None:
        """Continue, bit-exactly, from `state_dict`'s answer. Raises ValueError when it is another optimizer's."""
        missing = {"state", "param_groups", "tuner", "lr_factor", "version"} - set(state_dict)
        if missing:
            raise ValueError(f"state: expected the state of a YellowFin optimizer, got one without {sorted(missing)}")
        super().load_state_dict(state_dict)
        self.lr_factor.load_state_dict(state_dict["lr_factor"])
        self._tuner.load_state_dict(_to_device(state_dict["tuner"], self.param_groups[0]["params"][0].device))
        self.version = int(state_dict["version"])

    def __getstate__(self) -> State:
        own = {name: value for name, value in self.__dict__.items() if name in _OWN}
        return {**super().__getstate__(), **own}

    def _parameters(self) -> Iterator[tuple[Group, Tensor]]:
        return ((group, p) for group in self.param_groups for p in group["params"])

    def _loop(self) -> Loop:
        o = self._options
        return Closed(o.gain, o.momentum_min, o.momentum_max) if self._closed else Open()

    def _estimator(self, size: int, resolution: float) -> TotalMomentum:
        o = self._options
        return TotalMomentum(size, sample=o.sample, history=o.history, seed=0, resolution=resolution)

    @property
    def _dtype(self) -> torch.dtype:
        """Of the flat gradient and of all arithmetic: float64 when any parameter is, else float32."""
        wide = any(p.dtype == torch.float64 for _, p in self._parameters())
        return torch.float64 if wide else torch.float32


_OWN = ("_options", "_closed", "_target", "_tuner", "lr_factor", "settings", "total_momentum", "version")


def _to_device(state: Any, device: torch.device) -> Any:
    """The same nested state with every tensor on `device`."""
    if isinstance(state, dict):
        return {key: _to_device(value, device) for key, value in state.items()}
    return state.to(device) if isinstance(state, Tensor) else state
