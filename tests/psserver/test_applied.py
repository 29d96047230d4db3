"""What total momentum is measured with: how gradients have changed, not what they are divided by."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from psserver.around import Around
from psserver.options import RuleName, RuleOptions
from psserver.rules import make_rule
from psserver.soap import Soap, spare_sample
from psserver.trajectory import Trajectory
from psserver.update import Updater
from tuner import TunerOptions, build

SHAPE, STALE, RATE = (6, 8), 5, 0.01
SIZE = SHAPE[0] * SHAPE[1] + 4
TENSORS = ((2, SHAPE),)
LARGE = ((3, (100, 70)), (7003, (128, 128)), (23387, (8, 4, 3, 3)))  # 97 and 33 are the only sides that stay whole


def updater(name: RuleName, sample: int = 0, decay: float = 0.0, **more: object) -> Updater:
    settings = {**more, **({"precondition_every": 3, "shampoo_beta": 0.8} if name == "soap" else {})}
    options = TunerOptions(target="constant", learning_rate=RATE, momentum=0.0, loop="open", sample=sample)
    tuner = build(options, SIZE, 100, 1)
    trajectory = Trajectory(np.linspace(1, 2, SIZE, dtype=np.float32), version=0, slots=3, directory=None)
    tuner.record(0, trajectory.current.tensor)
    rule = make_rule(RuleOptions(name=name, beta2=0.9, rho=0.9, **settings), SIZE, 1, TENSORS)  # type: ignore[arg-type]
    return Updater(trajectory, rule, tuner, decay)


def stale_excesses(made: Updater, updates: int) -> Iterator[float]:
    """Gradients of five workers in turn that come again and again: each is what was applied where it was computed."""
    gradients = [torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)) for seed in range(STALE)]
    versions = list(range(STALE)) * 2
    for version in itertools.count():
        if version == updates:
            return
        made.trajectory.hold(version)
        computed_at = max(0, version - STALE)
        found = made.apply(gradients[versions[version % STALE]], computed_at).total_momentum
        made.trajectory.release(computed_at) if version >= STALE else None
        if version >= 2 * STALE and found is not None:
            yield found


@pytest.mark.parametrize("sample", [0, 20])
@pytest.mark.parametrize("name", ["adam", "soap", "rmsprop", "adagrad"])
def test_gradients_that_have_not_changed_leave_no_excess_whatever_they_are_divided_by(
    name: RuleName, sample: int
) -> None:
    made = updater(name, sample)
    found = list(stale_excesses(made, 40))
    assert len(found) == 30
    assert max(abs(excess) for excess in found) < 1e-3
    made = updater(name, sample)
    made._applied._compares = False
    assert max(abs(excess) for excess in stale_excesses(made, 40)) > 4e-3, "there is something to leave out"


@pytest.mark.parametrize("correction", ["inverse", "delay-compensated", "gap-aware"])
def test_corrected_gradients_are_measured_in_an_eigenbasis_too(correction: str) -> None:
    made = updater("soap", 20, 0.01, staleness=correction)
    found = list(stale_excesses(made, 30))
    assert len(found) == 20
    assert np.isfinite(found).all()
    fresh = updater("soap", 20, 0.01, staleness=correction)
    for seed in range(12):
        gradient = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))
        measured = fresh.apply(gradient, fresh.trajectory.version).total_momentum
        assert seed == 0 or measured == pytest.approx(0.0, abs=1e-3), "without staleness it is the momentum"


def test_it_remembers_the_versions_that_are_kept_and_no_more() -> None:
    made = updater("soap", 20)
    for _ in stale_excesses(made, 60):
        assert len(made._applied._known) <= made.trajectory.slots <= STALE + 4


@pytest.mark.parametrize("count", [1, 30, 5000])
def test_what_lies_around_turns_as_the_whole_does(count: int) -> None:
    size = 23387 + 288 + 11
    rule = Soap(size, RuleOptions(name="soap"), LARGE)
    generator = torch.Generator().manual_seed(count)
    for tensor in rule._eigenbases:
        for basis in tensor.bases:
            basis.copy_(torch.linalg.qr(torch.randn(basis.shape, generator=generator)).Q)
    sampled = torch.randperm(size, generator=generator)[:count].sort().values
    around, vector = Around(rule._eigenbases, sampled), torch.randn(size, generator=generator)
    assert len(torch.unique(around.coordinates)) == len(around.coordinates)
    into, out = vector.clone(), vector.clone()
    for tensor in rule._eigenbases:
        into[tensor.part] = tensor.into(vector[tensor.part])
        out[tensor.part] = tensor.out(vector[tensor.part])
    torch.testing.assert_close(around.into(vector[around.coordinates]), into[around.coordinates], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(around.out(vector[around.coordinates]), out[sampled], atol=1e-5, rtol=1e-5)


def test_a_sample_of_large_tensors_lies_in_few_blocks() -> None:
    options, size = RuleOptions(name="soap"), 23387 + 288 + 1000
    rule = Soap(size, options, LARGE)
    sampled = spare_sample(options, LARGE, size, 2048, 1, limit=5000)
    assert sampled is not None
    assert torch.equal(sampled, torch.unique(sampled)), "rising, each once"
    assert len(sampled) == 2048
    vectors = (sampled < 3) | (sampled >= 23387 + 288)
    assert abs(int(vectors.sum()) - 2048 * 1003 / size) < 40, "vectors have their share"
    assert len(Around(rule._eigenbases, sampled).coordinates) <= 5000 + 64 * 64 + int(vectors.sum())
    again = spare_sample(options, LARGE, size, 2048, 1, limit=5000)
    assert again is not None
    assert torch.equal(sampled, again)


def test_where_little_is_turned_the_sample_is_any() -> None:
    options = RuleOptions(name="soap")
    assert spare_sample(options, TENSORS, SIZE, 20, 1) is None
    assert spare_sample(options, LARGE, 24000, 0, 1, limit=5000) is None
    assert spare_sample(options, LARGE, 24000, 24000, 1, limit=5000) is None


def test_a_sample_larger_than_the_region_is_as_large_as_was_asked_for() -> None:
    sampled = spare_sample(RuleOptions(name="soap"), LARGE, 24675, 9000, 1, limit=500)
    assert sampled is not None
    assert len(torch.unique(sampled)) == 9000
