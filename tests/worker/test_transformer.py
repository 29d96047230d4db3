"""The transformer on Shakespeare: it looks at the past only, learns, and reads passages drawn for its place."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import pytest
import torch
from torch.nn import functional

from psserver.errors import ConfigurationError, DataError
from worker.evaluate import Evaluator
from worker.gradient import Gradient
from worker.task import Shard
from worker.zoo.language import character_transformer
from worker.zoo.text import random_passages
from worker.zoo.transformer import Transformer, held_out_loss

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"hidden": 16, "layers": 2, "heads": 2, "sequence": 12, "batch": 4}


def made() -> Transformer:
    torch.manual_seed(3)
    model = Transformer(20, 8, 2, 2, 10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # far from the start, where attention hardly matters
    return model.eval()


def test_a_later_token_changes_no_earlier_prediction_and_an_earlier_one_changes_the_later() -> None:
    model = made()
    tokens = torch.randint(20, (1, 10))
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 20
    before, after = model(tokens)[0], model(changed)[0]
    assert torch.equal(before[:6], after[:6])
    assert all(not torch.allclose(before[k], after[k]) for k in range(6, 10))


def test_the_order_of_the_past_matters() -> None:
    model = made()
    assert not torch.allclose(model(torch.tensor([[1, 2, 3]]))[0, 2], model(torch.tensor([[2, 1, 3]]))[0, 2])


def test_an_untrained_model_knows_nothing() -> None:
    task = character_transformer(evaluate_tokens=200, **SMALL)
    numbers = Evaluator(task, CPU).evaluate(Gradient(task, Shard(0, 1, 0), CPU).initial)
    assert numbers["loss"] == pytest.approx(math.log(65), rel=0.02)
    assert numbers["bits_per_character"] == numbers["loss"] / math.log(2)


def test_shakespeare_is_learnt_by_momentum() -> None:
    source = Gradient(character_transformer(hidden=32, layers=2, heads=2, sequence=32, batch=8), Shard(0, 1, 0), CPU)
    x, out, speed = torch.from_numpy(source.initial), torch.empty(source.layout.size), torch.zeros(source.layout.size)
    losses = []
    for step in range(1, 151):
        losses.append(source.compute(x, out, step)[0])
        speed.mul_(0.9).add_(out)
        x -= 0.05 * speed
    assert sum(losses[-10:]) / 10 < 2.9  # characters alone, without those before them: 3.3


def test_evaluation_counts_every_token_but_the_first_once() -> None:
    model = made()
    tokens = torch.randint(20, (10 * 64 + 10 * 3 + 4 + 1,), dtype=torch.int32)
    total = 0.0
    for first in range(0, len(tokens) - 1, 10):
        text = tokens[first : first + 11].long()
        total += functional.cross_entropy(model(text[None, :-1])[0], text[1:], reduction="sum").item()
    with torch.no_grad():
        assert held_out_loss(model, tokens) == pytest.approx(total / (len(tokens) - 1), rel=1e-5)
        assert held_out_loss(model, tokens[:2]) > 0


def test_passages_depend_on_seed_rank_and_position_alone() -> None:
    tokens = torch.arange(100, dtype=torch.int32)

    def drawn(shard: Shard, count: int = 3) -> list[torch.Tensor]:
        return [inputs for inputs, _ in islice(random_passages(shard, tokens, 4, 7), count)]

    first = drawn(Shard(0, 2, 5))
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(Shard(0, 2, 5)), strict=True))
    assert torch.equal(drawn(Shard(0, 2, 5, start=2), 1)[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], drawn(Shard(1, 2, 5), 1)[0])
    assert not torch.equal(first[0], drawn(Shard(0, 2, 6), 1)[0])


def test_passages_are_neighbours_and_reach_both_ends_of_the_text() -> None:
    tokens = torch.arange(10, dtype=torch.int32)
    read, follow = next(random_passages(Shard(0, 1, 0), tokens, 200, 7))
    assert read.dtype == torch.int64
    assert torch.equal(follow, read + 1)
    assert torch.equal(read, read[:, :1] + torch.arange(7))
    assert set(read[:, 0].tolist()) == {0, 1, 2}
    with pytest.raises(DataError, match="expected 11 or more"):
        next(random_passages(Shard(0, 1, 0), tokens, 1, 10))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"heads": 3}, "heads: expected 1 or more that divide hidden = 64, got 3"),
        ({"heads": 0}, "heads"),
        ({"layers": 0}, "layers"),
        ({"sequence": 0}, "sequence"),
        ({"dropout": 1.0}, "dropout"),
        ({"evaluate_tokens": 0}, "evaluate_tokens"),
    ],
)
def test_sizes_without_meaning_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        character_transformer(**wrong)
