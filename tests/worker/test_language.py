"""The language tasks: their models, their state, their numbers, and that they learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from psserver.errors import ConfigurationError, DataError
from worker.evaluate import Evaluator
from worker.gradient import Gradient
from worker.task import Shard, Task
from worker.zoo.language import character_lstm, parsing_lstm, word_lstm
from worker.zoo.lstm import LanguageModel, held_out_loss, perplexity

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"hidden": 16, "layers": 2, "batch": 4, "evaluate_tokens": 200}


def small() -> Task:
    return character_lstm(sequence=10, dropout=0.2, **SMALL)


def test_the_papers_models_have_the_papers_sizes() -> None:
    assert Gradient(character_lstm(), Shard(0, 1, 0), CPU).layout.size == 65 * 128 + 4 * 128 * 258 * 2 + 65 * 129
    assert Gradient(word_lstm(), Shard(0, 1, 0), CPU).layout.size == 10_000 * 200 + 4 * 200 * 402 * 2 + 10_000 * 201


def test_weights_start_small_and_forget_gates_open() -> None:
    torch.manual_seed(0)
    model = LanguageModel(50, 8, 2)
    assert 0.09 < max(float(p.detach().abs().max()) for n, p in model.named_parameters() if "weight" in n) <= 0.1
    for layer in range(2):
        bias = model.lstm.get_parameter(f"bias_ih_l{layer}") + model.lstm.get_parameter(f"bias_hh_l{layer}")
        assert bias.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16


def test_an_untrained_model_knows_nothing() -> None:
    numbers = Evaluator(small(), CPU).evaluate(Gradient(small(), Shard(0, 1, 0), CPU).initial)
    assert numbers["loss"] == pytest.approx(math.log(65), rel=0.02)
    assert numbers["bits_per_character"] == numbers["loss"] / math.log(2)


def test_shakespeare_is_learnt() -> None:
    source = Gradient(character_lstm(hidden=32, layers=1, sequence=20, batch=16), Shard(0, 1, 0), CPU)
    x, out = torch.from_numpy(source.initial), torch.empty(source.layout.size)
    moments = torch.zeros(2, source.layout.size)
    losses = []
    for step in range(1, 181):
        losses.append(source.compute(x, out, step)[0])
        moments[0].lerp_(out, 0.1)
        moments[1].lerp_(out.square(), 0.01)
        x -= 0.01 * moments[0] / (moments[1] / (1 - 0.99**step)).sqrt().add(1e-8)
    assert sum(losses[-10:]) / 10 < 2.6  # characters alone, without those before them: 3.3


def test_the_state_carries_a_passage_on_as_if_it_had_been_read_whole() -> None:
    torch.manual_seed(1)
    model = LanguageModel(50, 8, 2)
    tokens = torch.randint(50, (3, 21))
    whole, _ = model.loss(tokens[:, :-1], tokens[:, 1:], model.fresh_state(3))
    state, parts = model.fresh_state(3), []
    for k in (0, 10):
        part, state = model.loss(tokens[:, k : k + 10], tokens[:, k + 1 : k + 11], state)
        parts.append(part)
    assert (parts[0] + parts[1]).item() / 2 == pytest.approx(whole.item(), rel=1e-6)


def test_evaluation_reads_ten_rows_and_counts_every_token_once() -> None:
    torch.manual_seed(2)
    model = LanguageModel(20, 8, 1)
    tokens = torch.randint(20, (2315,), dtype=torch.int32)
    total = 0.0
    for row in range(10):
        text = tokens[231 * row : 231 * row + 232].long()
        scores, _ = model(text[None, :-1], model.fresh_state(1))
        total += functional.cross_entropy(scores[0], text[1:], reduction="sum").item()
    with torch.no_grad():
        assert held_out_loss(model, tokens) == pytest.approx(total / 2310, rel=1e-5)
        assert held_out_loss(model, tokens[:3]) > 0


def test_perplexity_stays_a_number() -> None:
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert math.isfinite(perplexity(1e9))
    assert math.isnan(perplexity(math.nan))


def test_virtual_workers_read_their_own_places_and_keep_their_own_state() -> None:
    first = Gradient(small(), Shard(0, 2, 7), CPU)
    sharing = [first, first.another(Shard(1, 2, 7))]
    alone = [Gradient(small(), Shard(rank, 2, 7), CPU) for rank in range(2)]
    out, other = torch.empty(first.layout.size), torch.empty(first.layout.size)
    x = first.initial
    losses = []
    for rank, step in [(0, 1), (1, 1), (0, 2), (0, 3), (1, 2), (1, 5), (0, 4)]:
        losses.append(sharing[rank].compute(x, out, step)[0])
        assert alone[rank].compute(x, other, step)[0] == losses[-1]
        assert torch.equal(out, other)
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("build", [word_lstm, parsing_lstm])
def test_words_and_trees_have_a_finite_loss_and_perplexity(
    build: Callable[..., Task], ptb_data: Path, wsj_data: Path
) -> None:
    task = build(unroll=5, data_dir=ptb_data, **SMALL, **({"vocabulary": 300} if build is word_lstm else {}))
    source = Gradient(task, Shard(3, 4, 0), CPU)
    vocabulary = source.layout.parameters[0].shape[0]
    loss, examples = source.compute(source.initial, torch.empty(source.layout.size), 1)
    numbers = Evaluator(task, CPU).evaluate(source.initial)
    assert examples == 4
    assert loss == pytest.approx(math.log(vocabulary), rel=0.02)
    assert numbers["perplexity"] == pytest.approx(vocabulary, rel=0.1)
    inputs, targets = next(islice(task.batches(Shard(0, 1, 0)), 3, None))
    assert int(min(inputs.min(), targets.min())) >= 0
    assert int(max(inputs.max(), targets.max())) < vocabulary


def test_the_model_of_words_needs_no_data(tmp_path: Path) -> None:
    assert (
        word_lstm(vocabulary=100, data_dir=tmp_path, **SMALL).model().get_parameter("embedding.weight").shape[0] == 100
    )
    with pytest.raises(DataError, match="no treebank"):
        parsing_lstm(data_dir=tmp_path, **SMALL).model()


@pytest.mark.parametrize(
    ("build", "wrong", "said"),
    [
        (character_lstm, {"hidden": 0}, "hidden"),
        (character_lstm, {"sequence": 0}, "sequence"),
        (character_lstm, {"evaluate_tokens": 0}, "evaluate_tokens"),
        (word_lstm, {"dropout": 1.0}, "dropout"),
        (word_lstm, {"vocabulary": 10_001}, "vocabulary"),
        (parsing_lstm, {"at_least": 0}, "at_least"),
        (parsing_lstm, {"layers": -1}, "layers"),
    ],
)
def test_sizes_without_meaning_are_refused(build: Callable[..., Task], wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        build(**wrong)
