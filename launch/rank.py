"""Which worker this process is: from the options, else from what torchrun or Slurm put into the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from psserver.errors import ConfigurationError

_LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "Slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}


@dataclass(frozen=True)
class Rank:
    """rank: this worker among all, from 0, None lets the server choose; world: how many workers, None when unknown;
    local: this process among those on its host, which picks the GPU.
    """

    rank: int | None = None
    world: int | None = None
    local: int = 0


def find_rank(rank: int | None = None, environment: Mapping[str, str] | None = None) -> Rank:
    """The rank given, else torchrun's, else Slurm's, else none.

    Slurm's three also stand in the environment of a plain `srun` shell with one task, which is worker 0 of 1.
    Raises ConfigurationError for a rank below 0, a variable that is no whole number, half a set of them, or a
    rank that is not below the number of workers.
    """
    values = os.environ if environment is None else environment
    if rank is not None:
        if rank < 0:
            raise ConfigurationError(f"--rank: expected 0 or more, got {rank}")
        return Rank(rank, None, _local(values))
    for launcher, names in _LAUNCHERS.items():
        if any(name in values for name in names[:2]):
            return _from(launcher, names, values)
    return Rank()


def _from(launcher: str, names: tuple[str, str, str], values: Mapping[str, str]) -> Rank:
    missing = [name for name in names[:2] if name not in values]
    if missing:
        present = next(name for name in names[:2] if name in values)
        raise ConfigurationError(
            f"{present} is set but {missing[0]} is not, and {launcher} sets both; set {missing[0]}, or give --rank"
        )
    found = Rank(_whole(names[0], values), _whole(names[1], values), _local(values))
    if found.rank is not None and found.world is not None and found.rank >= found.world:
        raise ConfigurationError(
            f"{names[0]}: expected a rank below {names[1]}={found.world}, got {found.rank}; ranks start at 0"
        )
    return found


def _local(values: Mapping[str, str]) -> int:
    for _, _, name in _LAUNCHERS.values():
        if name in values:
            return _whole(name, values)
    return 0


def _whole(name: str, values: Mapping[str, str]) -> int:
    text = values[name].strip()
    if not (text.isascii() and text.isdigit()):
        raise ConfigurationError(f"{name}: expected a whole number of 0 or more, got {values[name]!r}")
    return int(text)
