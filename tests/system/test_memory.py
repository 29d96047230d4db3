"""The server's memory: as many vectors as it says, and no more at the end of thousands of updates than early on."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

LARGE, SMALL = 1_730_714, 100_000  # the first is ResNet-110's
WORKERS = 2
SLOTS = WORKERS + 3
OTHER = WORKERS + 6  # a gradient of each worker, what the tuner and the rule keep, what is copied for a checkpoint
PLAIN = ["tuner.target=distance", "tuner.loop=both", "rule.name=adam"]
YELLOWFIN = ["tuner.target=yellowfin", "tuner.loop=closed", "rule.name=momentum_sgd"]
CHEAP = """
import itertools, torch
from worker import Task

class Model(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.x = torch.nn.Parameter(torch.ones(size))

def cheap(size):
    def loss(module, batch):
        return module.x.square().mean()
    return Task(model=lambda: Model(size), loss=loss, batches=lambda shard: itertools.repeat(torch.zeros(1)))
"""


def imported_torch() -> int:
    """Resident bytes of a process that has imported torch."""
    code = "import psutil, torch; torch.ones(9).add_(1); print(psutil.Process().memory_info().rss)"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("size", "updates"), [(LARGE, 250), (SMALL, 1_500)])
@pytest.mark.parametrize("tuning", [PLAIN, YELLOWFIN], ids=["plain", "yellowfin"])
def test_the_server_holds_its_versions_and_little_else_and_does_not_grow(
    tuning: list[str], size: int, updates: int, start: Any, tmp_path: Path, slow: Path, records: Any
) -> None:
    (tmp_path / "cheap.py").write_text(CHEAP)
    run = records(tmp_path / "run")
    settings = ["task.function=cheap.py:cheap", f"task.arguments.size={size}", f"train.workers={WORKERS}"]
    settings += [f"train.updates={updates + 50}", f"checkpoint.every={updates // 5}", "launch.evaluator=false"]
    options = [word for setting in [*settings, *tuning] for word in ("--set", setting)]
    train = start("train", slow, "--run-dir", run.folder, *options)
    baseline = imported_torch()
    beyond: list[int] = []  # at every look from the first update on; updates are written down a few times a second only

    def sampled() -> bool:
        update = run.updates()
        if 0 < update < updates:
            with suppress(psutil.NoSuchProcess):  # it was quicker than its record
                beyond.append(psutil.Process(run.server()).memory_info().rss - baseline)
        return update >= updates

    train.until(sampled, 200)
    assert train.code() == 0, train.err
    assert len(beyond) >= 20
    assert max(beyond) < 4 * size * (SLOTS + OTHER) + 100e6
    # The least of many samples: a checkpoint borrows a few vectors for a while, and that is no growth.
    tenth = len(beyond) // 10
    early, late = min(beyond[2 * tenth : 5 * tenth]), min(beyond[7 * tenth :])
    assert late < early + 4e6
