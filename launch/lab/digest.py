"""What an experiment computes, as a short digest that stays the same when options are added later."""

from __future__ import annotations

import hashlib
from typing import Any

from launch.experiment import DataSection, Experiment, as_toml
from psserver.options import CheckpointOptions

_LENGTH = 12

# Every option there was when digests began. They are always part of a digest, so that a point that relied on a default
# is computed again when that default changes.
_FIRST: dict[str, str] = {
    "train": "updates workers seed device",
    "rule": "name weight_decay rho beta2 epsilon staleness compensation gap_decay",
    "tuner": "target learning_rate momentum milestones decay warmup lr_factor beta window smoothing clip loop "
    "estimator gain momentum_min momentum_max sample history",
    "server": "mode max_staleness heartbeat_timeout drain_timeout slots shared_memory shared_memory_dir "
    "max_message_bytes buffers_every",
    "evaluate": "every device statistics",
    "launch": "worker_restarts server_restarts threads evaluator patience",
    "simulate": "staleness shape stragglers slowdown trace",
}

NEUTRAL: dict[str, Any] = {"tuner.robust": False}
"""Options that came later and whose default is no longer the value that means what was before: key -> that value."""


def digest(experiment: Experiment, how: str) -> str:
    """Of all that decides the outcome: not the name, nor where data lie, nor checkpoints.

    An option that came after digests began is left out while it has its neutral value: what it was before there was
    such an option, which is its default unless `NEUTRAL` has another. So a new option leaves older digests as they are.
    """
    plain = {"name": "", "data": DataSection(), "checkpoint": CheckpointOptions()}
    document = experiment.model_copy(update=plain).model_dump()
    for section, known in _FIRST.items():
        defaults = type(experiment).model_fields[section].default
        for key in document[section].keys() - {*known.split()}:
            if document[section][key] == NEUTRAL.get(f"{section}.{key}", getattr(defaults, key)):
                del document[section][key]
    text = as_toml(document)
    return hashlib.sha256(f"{how}\n{text}".encode()).hexdigest()[:_LENGTH]
