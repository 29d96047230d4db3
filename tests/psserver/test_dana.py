"""DANA-Slim against workers that keep their own momentum, as in the paper, and its vectors by rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from psserver import RuleOptions, load_checkpoint
from psserver.checkpoint import save_checkpoint
from psserver.rules import state_vectors
from tests.psserver.conftest import SIZE, ServerFactory, Talker

RATE, MOMENTUM, DECAY = 0.0625, 0.75, 0.25
RULE = RuleOptions(name="dana_slim", weight_decay=DECAY)


class OwnMomentum:
    """The paper's worker: v ← γ v + g, and γ v + g is what it sends; the master takes η of it."""

    def __init__(self) -> None:
        self.v = np.zeros(SIZE)

    def send(self, gradient: np.ndarray) -> np.ndarray:
        self.v = MOMENTUM * self.v + gradient
        return MOMENTUM * self.v + gradient


def test_it_makes_the_versions_of_workers_that_keep_their_own_momentum(make_server: ServerFactory) -> None:
    server = make_server(workers=4, rule=RULE, learning_rate=RATE, momentum=MOMENTUM)
    talkers, workers = [Talker(server, key) for key in "abcd"], [OwnMomentum() for _ in range(4)]
    for talker in talkers:
        talker.pull()
    random, x = np.random.default_rng(1), np.arange(SIZE, dtype=float)
    for _ in range(60):
        who = int(random.integers(4))
        gradient = random.normal(size=SIZE).astype(np.float32)
        x = x - RATE * workers[who].send(gradient + DECAY * x)
        talkers[who].push(gradient)
        np.testing.assert_allclose(server.trajectory.current.values, x, rtol=1e-5, atol=1e-5)
    assert sorted(server.state_dict()["rule"]) == sorted(
        f"{kind}_{k}" for kind in ("gradient", "velocity") for k in range(4)
    )
    assert state_vectors(RULE, 4) == 8


def test_a_rank_that_is_taken_again_goes_on_with_its_vector(make_server: ServerFactory, tmp_path: Path) -> None:
    server = make_server(workers=2, rule=RULE)
    for key in "ab":
        talker = Talker(server, key)
        talker.pull()
        talker.push(1.0 if key == "a" else -3.0)
    path = save_checkpoint(tmp_path, server.version, server.state_dict(), keep=1)
    later = make_server(workers=2, rule=RULE, resume=load_checkpoint(path))
    again = Talker(later, "c", rank=1)
    again.pull()
    before, x = later.state_dict()["rule"]["velocity_1"].clone(), later.trajectory.current.tensor.clone()
    again.push(2.0)
    state = later.state_dict()["rule"]
    assert torch.equal(state["velocity_1"], 0.5 * before + (2.0 + DECAY * x))
    assert torch.equal(state["velocity_0"], server.state_dict()["rule"]["velocity_0"])


def test_a_synchronous_round_has_one_velocity(make_server: ServerFactory) -> None:
    server = make_server(workers=3, rule=RULE, mode="synchronous")
    talkers = [Talker(server, key) for key in "abc"]
    for talker in talkers:
        talker.pull()
    server.released()
    for talker in talkers:
        talker.push(1.0, version=0)
    assert server.version == 1
    assert list(server.state_dict()["rule"]) == ["velocity_0", "gradient_0"]


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_the_total_momentum_of_fresh_gradients_by_several_workers_is_theirs(
    make_server: ServerFactory, momentum: float
) -> None:
    """Two workers whose gradients never change: every step is the same, and so is every velocity in the end."""
    server = make_server(
        workers=2, rule=RuleOptions(name="dana_slim"), momentum=momentum, learning_rate=1e-3, updates=400
    )
    talkers = [Talker(server, key) for key in "ab"]
    for turn in range(300):
        talkers[turn % 2].pull()
        talkers[turn % 2].push(1.0)
    assert server.journal.progress.total_momentum == pytest.approx(momentum, abs=1e-2)
