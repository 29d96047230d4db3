"""The `[server]`, `[rule]` and `[checkpoint]` sections of an experiment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar, Literal

RuleName = Literal[
    "momentum_sgd",
    "nesterov",
    "rmsprop",
    "adagrad",
    "adam",
    "adamw",
    "soap",
    "dana_slim",
    "ormo",
    "schedule_free_sgd",
    "schedule_free_adamw",
    "prodigy",
]
_THREADS = 4  # that are taken unasked, at most
_DECOUPLED = ("adamw", "schedule_free_adamw", "prodigy")


def _need(condition: bool, field: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{field}: expected {expected}, got {got!r}")


@dataclass(frozen=True)
class RuleOptions:
    """Which update rule turns a gradient into a new version.

    name:         "momentum_sgd" or "nesterov"; "rmsprop" or "adagrad", which are the methods as published when the
                  momentum is 0; "adam" or "adamw", whose β1 is the momentum; "soap", Adam in the eigenbasis of what
                  each tensor's gradients have been. Against staleness: "dana_slim", Nesterov's method with a momentum
                  for each worker, which the server keeps (a vector a worker); "ormo", whose momentum has the gradients
                  in the order in which they were asked for. Without a schedule: "schedule_free_sgd" or
                  "schedule_free_adamw", whose β is the momentum; "prodigy", Adam that finds its learning rate, of which
                  the tuner's is a multiple (tuner.learning_rate = 1 is the method).
    weight_decay: λ of the λx that is added to every gradient before anything looks at it; for adamw,
                  schedule_free_adamw and prodigy of the αλx that an update takes, which no gradient shows.
    rho:          decay ρ of RMSProp's second moment.
    beta2:        decay β2 of Adam's second moment, and of schedule_free_adamw's and prodigy's. The customary 0.999 is
                  slower to follow a loss that falls; 0.95 by measurement (docs/research.md).
    epsilon:      ε, added to the root of a second moment.
    shampoo_beta: decay of the products of gradients whose eigenvectors are soap's basis.
    precondition_every: updates between two such bases of a tensor.
    precondition_limit: most rows, or columns, that share a basis; where there are more, they have several.
    precondition_values: most parameters whose gradients are turned into one, the smallest tensors first; what is
                  beyond them is Adam's. It bounds what an update costs.
    staleness:    what is done about a gradient's staleness τ, with any rule: "none"; "inverse", which divides the
                  learning rate by max(τ, 1); "delay-compensated", which adds λ g² (x_t − x_v) to the gradient g, x_v
                  being where it was computed; "gap-aware", which divides g by 1 + |x_t − x_v| / C, C a usual step.
                  These two refuse the few gradients whose x_v is gone, after a restart or a lost connection.
                  "threshold" discards a gradient of τ ≥ R and applies every other as it is; its worker goes on with
                  the newest parameters, and the push counts as rejected (asynchronous mode only).
    compensation: that λ; the default is that of the implementation in MXNet.
    gap_decay:    decay of the running mean of squared steps that C is the root of.
    delay_threshold: that R, 1 or more; has no default. Source: Maranjyan, Tyurin and Richtárik (2025), Ringmaster
                  ASGD.
    initial_distance: d_0, from which prodigy's estimate of the distance to the solution grows.
    """

    name: RuleName = "soap"
    weight_decay: float = 0.0
    rho: float = 0.99
    beta2: float = 0.95
    epsilon: float = 1e-8
    shampoo_beta: float = 0.98
    precondition_every: int = 10
    precondition_limit: int = 64
    precondition_values: int = 2_000_000
    staleness: Literal["none", "inverse", "delay-compensated", "gap-aware", "threshold"] = "none"
    compensation: float = 0.04
    gap_decay: float = 0.999
    delay_threshold: int | None = None
    initial_distance: float = 1e-6

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check the ranges."""
        _need(self.weight_decay >= 0, "weight_decay", "a number of at least 0", self.weight_decay)
        _need(0 <= self.rho < 1, "rho", "a number in [0, 1)", self.rho)
        _need(0 <= self.beta2 < 1, "beta2", "a number in [0, 1)", self.beta2)
        _need(self.epsilon > 0, "epsilon", "a number above 0", self.epsilon)
        _need(0 <= self.shampoo_beta < 1, "shampoo_beta", "a number in [0, 1)", self.shampoo_beta)
        _need(self.precondition_every >= 1, "precondition_every", "1 or more updates", self.precondition_every)
        _need(self.precondition_limit >= 1, "precondition_limit", "1 or more rows", self.precondition_limit)
        _need(self.precondition_values >= 0, "precondition_values", "0 or more parameters", self.precondition_values)
        _need(self.compensation >= 0, "compensation", "a number of at least 0", self.compensation)
        _need(0 <= self.gap_decay < 1, "gap_decay", "a number in [0, 1)", self.gap_decay)
        _need(self.initial_distance > 0, "initial_distance", "a number above 0", self.initial_distance)
        threshold = self.delay_threshold
        _need(
            threshold is not None or self.staleness != "threshold",
            "delay_threshold",
            "1 or more updates, for staleness 'threshold'",
            threshold,
        )
        _need(threshold is None or threshold >= 1, "delay_threshold", "1 or more updates", threshold)

    @property
    def gradient_decay(self) -> float:
        """The λ that goes into the gradient."""
        return 0.0 if self.name in _DECOUPLED else self.weight_decay

    @property
    def discards_from(self) -> int | None:
        """The staleness from which on a gradient is discarded; None when none is."""
        return self.delay_threshold if self.staleness == "threshold" else None

    def check_with(self, server: ServerOptions) -> None:
        """Raise ValueError for a rule that has no meaning with these options of the server."""
        _need(
            server.mode == "asynchronous" or self.discards_from is None,
            "rule.staleness",
            "no 'threshold' in synchronous mode (no gradient is stale there)",
            self.staleness,
        )


@dataclass(frozen=True)
class ServerOptions:
    """How the server treats its members.

    mode:               "asynchronous" applies each gradient as it arrives, "synchronous" the mean of all workers'.
    max_staleness:      no gradient is ever staler than this (asynchronous); None for no bound.
    heartbeat_timeout:  seconds of silence after which a member counts as lost.
    drain_timeout:      seconds the server waits at the end for workers to say goodbye.
    slots:              versions kept in memory; 0 means as many as the workers need (workers + 3).
    shared_memory:      hand payloads to workers on this host through shared memory.
    shared_memory_dir:  where; a memory file system.
    max_message_bytes:  largest message accepted; 0 means what this model needs.
    buffers_every:      pushes between two reports of a worker's BatchNorm statistics.
    threads:            on which an update by soap is made, whose tensors have nothing to do with each other; 0 means
                        half of the cores, at most 4. They change no bit, and other rules need none.
    """

    mode: Literal["asynchronous", "synchronous"] = "asynchronous"
    max_staleness: int | None = None
    heartbeat_timeout: float = 30.0
    drain_timeout: float = 60.0
    slots: int = 0
    shared_memory: bool = True
    shared_memory_dir: str = "/dev/shm"
    max_message_bytes: int = 0
    buffers_every: int = 1
    threads: int = 0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check the ranges."""
        bound = self.max_staleness
        _need(bound is None or bound >= 0, "max_staleness", "0 or more, or none", bound)
        _need(self.heartbeat_timeout > 0, "heartbeat_timeout", "seconds above 0", self.heartbeat_timeout)
        _need(self.drain_timeout >= 0, "drain_timeout", "seconds of at least 0", self.drain_timeout)
        _need(self.slots == 0 or self.slots >= 3, "slots", "0, or at least 3", self.slots)
        _need(self.max_message_bytes >= 0, "max_message_bytes", "0 or more", self.max_message_bytes)
        _need(self.buffers_every >= 1, "buffers_every", "1 or more", self.buffers_every)
        _need(self.threads >= 0, "threads", "0 or more", self.threads)
        _need(
            self.mode == "asynchronous" or bound is None,
            "max_staleness",
            "nothing in synchronous mode (no gradient is stale there)",
            bound,
        )

    @property
    def update_threads(self) -> int:
        """How many threads that are, with the cores that this process may use."""
        return self.threads or max(1, min(_THREADS, len(os.sched_getaffinity(0)) // 2))

    def sources(self, workers: int) -> int:
        """Of how many workers a rule sees gradients: of each apart, or synchronously of all as of one."""
        return workers if self.mode == "asynchronous" else 1


@dataclass(frozen=True)
class CheckpointOptions:
    """When the server writes checkpoints, besides the last one of a run.

    every: updates between two checkpoints; 0 writes only the last.
    keep:  newest checkpoints kept.
    """

    every: int = 1000
    keep: int = 2

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check the ranges."""
        _need(self.every >= 0, "every", "0 or more updates", self.every)
        _need(self.keep >= 1, "keep", "1 or more", self.keep)
