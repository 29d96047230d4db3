"""OrMo against momentum SGD over buckets, made anew after each arrival from all gradients in order."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from psserver import RuleOptions
from psserver.ormo import bucket_of
from tests.psserver.conftest import SIZE, ServerFactory, Talker

RATE, BETA, WORKERS = 0.0625, 0.75, 4


def in_order(arrived: list[tuple[int, np.ndarray]], newest: int, workers: int) -> np.ndarray:
    """Momentum SGD, one step a bucket with the sum of what has arrived of it, up to the bucket being filled."""
    buckets: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(SIZE))
    for version, gradient in arrived:
        buckets[bucket_of(version, workers)] = buckets[bucket_of(version, workers)] + gradient
    x, u = np.arange(SIZE, dtype=float), np.zeros(SIZE)
    for bucket in range(bucket_of(newest, workers) + 1):
        u = BETA * u + RATE * buckets[bucket]
        x = x - u
    return x


def test_a_bucket_has_as_many_versions_as_there_are_workers_and_the_first_one_only_version_0() -> None:
    assert [bucket_of(version, 3) for version in range(8)] == [0, 1, 1, 1, 2, 2, 2, 3]
    assert [bucket_of(version, 1) for version in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [1, 3, 4])
def test_late_gradients_enter_the_momentum_where_they_would_have_been(make_server: ServerFactory, workers: int) -> None:
    rule = RuleOptions(name="ormo")
    server = make_server(workers=workers, rule=rule, learning_rate=RATE, momentum=BETA)
    talkers = [Talker(server, str(key)) for key in range(workers)]
    for talker in talkers:
        talker.pull()
    random, arrived, stalest = np.random.default_rng(0), [], 0
    for version in range(80):
        talker = talkers[random.integers(workers) if random.random() < 0.5 else 0]
        assert talker.given is not None
        gradient = random.normal(size=SIZE).astype(np.float32)
        arrived.append((talker.given.version, gradient))
        stalest = max(stalest, version - talker.given.version)
        talker.push(gradient)
        expected = in_order(arrived, version, workers)
        np.testing.assert_allclose(server.trajectory.current.values, expected, rtol=1e-5, atol=1e-5)
    assert stalest > workers or workers == 1


def test_synchronous_rounds_are_momentum_sgd_with_their_mean(make_server: ServerFactory) -> None:
    rule = RuleOptions(name="ormo")
    server = make_server(workers=3, rule=rule, mode="synchronous", learning_rate=RATE, momentum=BETA)
    talkers, random = [Talker(server, key) for key in "abc"], np.random.default_rng(2)
    for talker in talkers:
        talker.pull()
    x = previous = np.arange(SIZE, dtype=float)
    for version in range(20):
        server.released()
        gradients = random.normal(size=(3, SIZE)).astype(np.float32)
        for talker, gradient in zip(talkers, gradients, strict=True):
            talker.push(gradient, version=version)
        x, previous = x + BETA * (x - previous) - RATE * gradients.mean(axis=0), x
    np.testing.assert_allclose(server.trajectory.current.values, x, rtol=1e-5, atol=1e-5)
