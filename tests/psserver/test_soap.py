"""SOAP: its formula, what it leaves to Adam, its blocks and its state, and that it is worth having."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from psserver.options import RuleOptions
from psserver.rule_state import Whole
from psserver.rules import make_rule, state_vectors
from psserver.soap import Soap, matrix_values
from psserver.trajectory import Trajectory
from psserver.update import BLOCK, Updater, blocks
from tuner import TunerOptions, build
from tuner.layers import Layers, Strides

Array = NDArray[np.float64]
RATE, BETA1, BETA2, SHAMPOO, EVERY, EPSILON = 0.01, 0.6, 0.9, 0.8, 3, 1e-8
OPTIONS = RuleOptions(name="soap", beta2=BETA2, shampoo_beta=SHAMPOO, precondition_every=EVERY, precondition_limit=64)
MATRIX = (0, (5, 7))


def updater(options: RuleOptions, size: int, tensors: tuple[tuple[int, tuple[int, ...]], ...]) -> Updater:
    tuner = build(
        TunerOptions(target="constant", learning_rate=RATE, momentum=BETA1, loop="open", sample=0), size, 1000, 0
    )
    start = np.random.default_rng(1).normal(size=size).astype(np.float32)
    trajectory = Trajectory(start, version=0, slots=3, directory=None)
    tuner.record(0, trajectory.current.tensor)
    return Updater(trajectory, make_rule(options, size, 1, tensors), tuner, 0.0)


def by_formula(start: Array, gradients: list[Array]) -> Array:
    """The last version by Vyas et al., written down once more in float64 with dense matrices."""
    x, (rows, columns) = start, start.shape
    m, v = np.zeros_like(x), np.zeros_like(x)
    left, right = np.zeros((rows, rows)), np.zeros((columns, columns))
    q, p = np.eye(rows), np.eye(columns)
    for t, g in enumerate(gradients, start=1):
        left = SHAMPOO * left + (1 - SHAMPOO) * g @ g.T
        right = SHAMPOO * right + (1 - SHAMPOO) * g.T @ g
        if t % EVERY == 0:
            q_new, p_new = np.linalg.eigh(left)[1], np.linalg.eigh(right)[1]
            a, b = q.T @ q_new, p.T @ p_new
            m, v = a.T @ m @ b, (a**2).T @ v @ b**2
            q, p = q_new, p_new
        turned = q.T @ g @ p
        m, v = BETA1 * m + (1 - BETA1) * turned, BETA2 * v + (1 - BETA2) * turned**2
        step = m / (1 - BETA1**t) / (np.sqrt(v / (1 - BETA2**t)) + EPSILON)
        x = x - RATE * q @ step @ p.T
    return x


def test_it_is_its_formula() -> None:
    random = np.random.default_rng(0)
    made = updater(OPTIONS, 35, (MATRIX,))
    start = made.trajectory.current.values.astype(np.float64).reshape(5, 7)
    mixing = random.normal(size=(7, 7))
    gradients = [random.normal(size=(5, 7)) @ mixing for _ in range(25)]
    for gradient in gradients:
        made.apply(torch.from_numpy(gradient.astype(np.float32).reshape(-1)), made.trajectory.version)
    expected = by_formula(start, gradients)
    np.testing.assert_allclose(made.trajectory.current.values.reshape(5, 7), expected, atol=1e-3)
    assert np.abs(expected - start).mean() > 0.02, "it moved"


def test_without_tensors_it_is_adam_bit_for_bit() -> None:
    soap, adam = updater(OPTIONS, 35, ()), updater(RuleOptions(name="adam", beta2=BETA2), 35, ())
    for seed in range(15):
        gradient = torch.randn(35, generator=torch.Generator().manual_seed(seed))
        for each in (soap, adam):
            each.apply(gradient, each.trajectory.version)
    assert torch.equal(soap.trajectory.current.tensor, adam.trajectory.current.tensor)


def test_vectors_beside_a_tensor_are_adams_bit_for_bit() -> None:
    soap, adam = updater(OPTIONS, 40, (MATRIX,)), updater(RuleOptions(name="adam", beta2=BETA2), 40, ())
    for seed in range(15):
        gradient = torch.randn(40, generator=torch.Generator().manual_seed(seed))
        for each in (soap, adam):
            each.apply(gradient, each.trajectory.version)
    assert torch.equal(soap.trajectory.current.tensor[35:], adam.trajectory.current.tensor[35:])
    assert not torch.equal(soap.trajectory.current.tensor[:35], adam.trajectory.current.tensor[:35])


def test_what_it_says_alpha_multiplied_is_what_moved_x_where_there_is_no_momentum() -> None:
    made = updater(OPTIONS, 40, (MATRIX,))
    rule = made.rule
    assert isinstance(rule, Soap)
    around = rule.around(torch.arange(40))
    for seed in range(12):
        gradient = torch.randn(40, generator=torch.Generator().manual_seed(seed))
        x, new = made.trajectory.current.tensor.clone(), torch.empty(40)
        rule.begin(RATE, 0.0)
        rule.apply(slice(0, 40), new, x, x, gradient, torch.empty(40))
        torch.testing.assert_close(x - RATE * rule.applied(gradient[around], x, torch.clone), new, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("values", "expected"), [(35, [slice(0, 35)]), (40, [slice(0, 35)]), (34, []), (1000, None)])
def test_the_smallest_tensors_are_turned_first(values: int, expected: list[slice] | None) -> None:
    tensors = (MATRIX, (35, (8, 8)), (99, (1, 1)))
    options = RuleOptions(name="soap", precondition_values=values)
    everything = [slice(0, 35), slice(35, 99)]
    assert Soap(100, options, tensors).whole == (everything if expected is None else expected)
    sizes = {(): 0, (35,): 2 * (25 + 49), (35, 64): 2 * (25 + 49 + 64 + 64)}
    turned = tuple(part.stop - part.start for part in Soap(100, options, tensors).whole)
    assert matrix_values(options, tensors) == sizes[turned]


def test_no_block_cuts_a_tensor() -> None:
    whole = [slice(10, BLOCK + 5), slice(BLOCK + 5, BLOCK + 10), slice(2 * BLOCK, 5 * BLOCK)]
    found = blocks(6 * BLOCK, whole)
    assert [block.start for block in found] == [0, *(block.stop for block in found[:-1])]
    assert found[-1].stop == 6 * BLOCK
    for part in whole:
        for block in found:
            apart = part.start >= block.stop or part.stop <= block.start
            assert apart or (block.start <= part.start and part.stop <= block.stop)
    assert blocks(3 * BLOCK + 1) == [slice(i * BLOCK, min((i + 1) * BLOCK, 3 * BLOCK + 1)) for i in range(4)]
    assert isinstance(Soap(35, OPTIONS, (MATRIX,)), Whole)


def test_a_tensor_across_blocks_moves_as_one_within_a_block() -> None:
    offset, shape = BLOCK - 17, (5, 7)
    far, near = updater(OPTIONS, BLOCK + 100, ((offset, shape),)), updater(OPTIONS, 35, (MATRIX,))
    start = far.trajectory.current.tensor[offset : offset + 35].clone()
    near.trajectory.current.tensor.copy_(start)
    for seed in range(8):
        gradient = torch.randn(BLOCK + 100, generator=torch.Generator().manual_seed(seed))
        far.apply(gradient, far.trajectory.version)
        near.apply(gradient[offset : offset + 35].clone(), near.trajectory.version)
    torch.testing.assert_close(far.trajectory.current.tensor[offset : offset + 35], near.trajectory.current.tensor)


def test_its_state_continues_bit_for_bit_and_is_as_large_as_it_says() -> None:
    made, again = updater(OPTIONS, 40, (MATRIX,)), updater(OPTIONS, 40, (MATRIX,))
    for seed in range(8):
        made.apply(torch.randn(40, generator=torch.Generator().manual_seed(seed)), made.trajectory.version)
    state = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in made.rule.state_dict().items()}
    values = sum(value.numel() for value in state.values() if isinstance(value, torch.Tensor))
    assert values == 40 * state_vectors(OPTIONS) + matrix_values(OPTIONS, (MATRIX,))
    again.rule.load_state_dict(state)
    now = made.trajectory
    resumed = Trajectory(now.current.values.copy(), version=now.version, slots=3, directory=None)
    resumed.restore_previous(now.previous.values.copy())
    again.trajectory = resumed
    for seed in range(8, 20):
        for each in (made, again):
            each.apply(torch.randn(40, generator=torch.Generator().manual_seed(seed)), each.trajectory.version)
        assert torch.equal(made.trajectory.current.tensor, again.trajectory.current.tensor)
    with pytest.raises(ValueError, match=r"rule\.products: expected 0 values"):
        make_rule(OPTIONS, 40).load_state_dict(state)


@pytest.mark.parametrize(("kept", "wanted"), [("soap", "adam"), ("adam", "soap"), ("soap", "adamw")])
def test_moments_in_other_bases_are_not_taken_for_its_own(kept: str, wanted: str) -> None:
    names: dict[str, RuleOptions] = {name: RuleOptions(**{**vars(OPTIONS), "name": name}) for name in (kept, wanted)}
    made = updater(names[kept], 40, (MATRIX,))
    made.apply(torch.ones(40), 0)
    with pytest.raises(KeyError):
        make_rule(names[wanted], 40, 1, (MATRIX,)).load_state_dict(made.rule.state_dict())


def reached(name: str, rate: float) -> int:
    """Updates until a badly conditioned quadratic of a matrix, of which no axis is a coordinate, is down to 1 %."""
    random = np.random.default_rng(3)
    q, p = (np.linalg.qr(random.normal(size=(12, 12)))[0] for _ in range(2))
    a, b = ((basis * np.logspace(-1.5, 0, 12)) @ basis.T for basis in (q, p))
    options = RuleOptions(name="soap" if name == "soap" else "adam")
    rule = make_rule(options, 144, 1, ((0, (12, 12)),))
    x = torch.from_numpy(random.normal(size=144).astype(np.float32))
    start = loss = float("nan")
    for update in range(2000):
        gradient = a @ x.numpy().reshape(12, 12).astype(np.float64) @ b
        loss = float((x.numpy().reshape(12, 12) * gradient).sum())
        start = loss if update == 0 else start
        if loss < 0.01 * start:
            return update
        rule.begin(rate, 0.0)
        new = torch.empty(144)
        noisy = torch.from_numpy((gradient + 0.01 * random.normal(size=(12, 12))).astype(np.float32).reshape(-1))
        rule.apply(slice(0, 144), new, x, x, noisy, torch.empty(144))
        x = new
    return 2000


def test_it_needs_fewer_updates_than_adam_where_no_axis_is_a_coordinate() -> None:
    rates = (0.01, 0.02, 0.04, 0.08)
    assert min(reached("soap", rate) for rate in rates) < 0.8 * min(reached("adam", rate) for rate in rates)


def test_its_steps_have_the_layers_factors() -> None:
    found = []
    for factors in ((1.0, 1.0), (3.0, 0.5)):
        rule = Soap(40, OPTIONS, (MATRIX,))
        rule.strides = Strides(Layers(40, (35, 5)), factors)
        x, new = torch.zeros(40), torch.empty(40)
        rule.begin(RATE, 0.0)
        rule.apply(slice(0, 40), new, x, x, torch.ones(40), torch.empty(40))
        found.append(new)
    torch.testing.assert_close(found[1][:35], 3.0 * found[0][:35])
    torch.testing.assert_close(found[1][35:], 0.5 * found[0][35:])
