"""The rank of a worker: options before environment, torchrun before Slurm, and no half answers."""

from __future__ import annotations

import pytest

from launch.rank import Rank, find_rank
from psserver.errors import ConfigurationError

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SLURM = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}


def test_without_any_launcher_the_server_chooses() -> None:
    assert find_rank(None, {}) == Rank(None, None, 0)


def test_torchrun_and_slurm_are_understood() -> None:
    assert find_rank(None, TORCHRUN) == Rank(5, 8, 1)
    assert find_rank(None, SLURM) == Rank(2, 4, 0)


def test_torchrun_inside_slurm_is_torchruns() -> None:
    assert find_rank(None, SLURM | TORCHRUN) == Rank(5, 8, 1)


def test_an_option_beats_the_environment_but_the_gpu_stays_the_launchers() -> None:
    assert find_rank(7, TORCHRUN) == Rank(7, None, 1)


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE"])
def test_half_a_set_of_variables_is_refused_by_name(missing: str) -> None:
    values = {name: value for name, value in TORCHRUN.items() if name != missing}
    with pytest.raises(ConfigurationError, match=f"{missing} is not"):
        find_rank(None, values)


@pytest.mark.parametrize("value", ["", "one", "-1", "1.5", "٣"])
def test_a_variable_that_is_no_whole_number_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match="RANK: expected a whole number"):
        find_rank(None, TORCHRUN | {"RANK": value})


def test_a_rank_must_be_below_the_number_of_workers() -> None:
    with pytest.raises(ConfigurationError, match="below WORLD_SIZE=8, got 8"):
        find_rank(None, TORCHRUN | {"RANK": "8"})
    with pytest.raises(ConfigurationError, match="--rank: expected 0 or more"):
        find_rank(-1, {})
