"""A real run in which a process is killed, which is stopped and resumed: its record makes it again, bit for bit."""

from __future__ import annotations

import signal
import textwrap
from pathlib import Path
from typing import Any

import psutil

from launch.replay import replay

TASK = '''
    """Digits with a recurrent layer, as slow as SLOW seconds make it."""
    import dataclasses
    import os
    import time
    import torch
    from torch.nn import functional
    from worker.zoo.digits import cnn

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.see = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 8, 8)), torch.nn.Conv2d(1, 4, 3),
                                           torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten())
            self.keep, self.out = torch.nn.Linear(144 + 12, 12), torch.nn.Linear(12, 10)

    def recurrent():
        task = cnn(batch=16)
        def loss(module, batch, state):
            time.sleep(float(os.environ.get("SLOW", "0")))
            images, labels = batch
            state = torch.tanh(module.keep(torch.cat([module.see(images), state], 1)))
            state = functional.dropout(state, 0.1)
            return functional.cross_entropy(module.out(state), labels), state
        return dataclasses.replace(task, model=Net, loss=loss, evaluate=None, state=lambda module: torch.zeros(16, 12))
'''
EXPERIMENT = """
    [task]
    function = "net.py:recurrent"
    [train]
    updates = 450
    workers = 4
    [rule]
    weight_decay = 1e-4
    [server]
    shared_memory = false  # frames lie at any address, which must not show in a single bit
    [evaluate]
    every = 0
    [checkpoint]
    every = 40
"""


def test_a_run_with_a_killed_worker_and_a_pause_is_replayed_to_the_last_bit(
    start: Any, yfps: Any, records: Any, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(textwrap.dedent(TASK))
    (tmp_path / "net.toml").write_text(textwrap.dedent(EXPERIMENT))
    run = records(tmp_path / "run")
    train = start("train", "net.toml", "--run-dir", run.folder, SLOW="0.1")
    train.until(lambda: run.updates() >= 30)
    psutil.Process(run.workers()[2]).kill()
    train.until(lambda: any(row["worker"] == 2 and row["fresh"] and row["step"] > 1 for row in run.rows("arrivals")))
    train.send(signal.SIGINT)
    assert train.code() == 130, train.err
    stopped = run.summary()["updates"]
    assert stopped < 450
    train = yfps("train", run.folder, "--run-dir", run.folder, "--resume")
    assert train.process.returncode == 0, train.err

    found = replay(run.folder)
    assert (found.difference, found.notes) == (None, [])
    assert (found.updates, found.checkpoints[-1]) == (450, 450)
    assert found.gradients == len(run.rows("arrivals")) >= found.updates
    assert any(row["fresh"] and row["step"] > 1 for row in run.rows("arrivals"))
    assert replay(run.folder, until=stopped).updates == stopped
