"""Language modelling: characters of Shakespeare, words and parse trees of the Wall Street Journal."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from psserver.errors import ConfigurationError
from worker.task import Task
from worker.zoo.lstm import LanguageModel, State, held_out_loss, perplexity
from worker.zoo.text import Corpus, count_words, encode, numbered, passages, random_passages
from worker.zoo.text_data import penn_treebank, tinyshakespeare
from worker.zoo.transformer import Transformer
from worker.zoo.transformer import held_out_loss as held_out_loss_of_transformer
from worker.zoo.treebank import treebank_corpus

_CHARACTERS = 65
"""Different characters of TinyShakespeare."""

_WORDS = 10_000
"""Different words of the Penn Treebank as Mikolov prepared it, "<unk>" and "<eos>" among them."""


def character_lstm(
    hidden: int = 128,
    layers: int = 2,
    sequence: int = 50,
    batch: int = 50,
    dropout: float = 0.0,
    evaluate_tokens: int | None = None,
) -> Task:
    """Return TinyShakespeare, character by character, with an LSTM; the text comes with the package.

    hidden, layers:  of the LSTM; the paper's is 2 × 128.
    sequence, batch: characters a row and rows a gradient: back-propagation reaches back to the row's first character,
                     the state to the worker's first.
    dropout:         see `worker.zoo.lstm.LanguageModel`.
    evaluate_tokens: evaluate on the first so many of the held-out characters, the last 5 % of the text; None: all.

    Evaluates to the loss (nats a character) and to bits_per_character.
    """
    _check(hidden, layers, sequence, batch, dropout, evaluate_tokens)

    def evaluate(module: nn.Module) -> dict[str, float]:
        loss = _evaluated(module, _shakespeare(), evaluate_tokens)
        return {"loss": loss, "bits_per_character": loss / math.log(2)}

    return _task(_shakespeare, lambda: LanguageModel(_CHARACTERS, hidden, layers, dropout), batch, sequence, evaluate)


def character_transformer(
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    sequence: int = 64,
    batch: int = 16,
    dropout: float = 0.0,
    evaluate_tokens: int | None = None,
) -> Task:
    """Return TinyShakespeare, character by character, with a decoder-only transformer; the text comes with the package.

    hidden, layers, heads, dropout: see `worker.zoo.transformer.Transformer`.
    sequence, batch: characters a passage and passages a gradient; each begins at a random place of the text.
    evaluate_tokens: as in `character_lstm`. Held-out text is read in passages of `sequence` characters, so losses of
                     different lengths differ by what a longer memory is worth.

    Evaluates to the loss (nats a character) and to bits_per_character.
    """
    _check(hidden, layers, sequence, batch, dropout, evaluate_tokens)
    if heads < 1 or hidden % heads:
        raise ConfigurationError(f"heads: expected 1 or more that divide hidden = {hidden}, got {heads}")

    def transformer(module: nn.Module) -> Transformer:
        if not isinstance(module, Transformer):
            raise TypeError(f"expected a Transformer, got {type(module).__name__}")
        return module

    def evaluate(module: nn.Module) -> dict[str, float]:
        loss = held_out_loss_of_transformer(transformer(module), _held_out(_shakespeare(), evaluate_tokens))
        return {"loss": loss, "bits_per_character": loss / math.log(2)}

    return Task(
        model=lambda: Transformer(_CHARACTERS, hidden, layers, heads, sequence, dropout),
        loss=lambda module, passage: transformer(module).loss(*passage),
        batches=lambda shard: random_passages(shard, _shakespeare().train, batch, sequence),
        evaluate=evaluate,
    )


def word_lstm(
    hidden: int = 200,
    layers: int = 2,
    unroll: int = 20,
    batch: int = 20,
    dropout: float = 0.0,
    vocabulary: int = _WORDS,
    evaluate_tokens: int | None = None,
    data_dir: Path | None = None,
) -> Task:
    """Return the Penn Treebank, word by word, with an LSTM (Zaremba et al. 2014; these defaults are their small one).

    hidden, layers:  of the LSTM.
    unroll, batch:   words a row and rows a gradient, as in `character_lstm`.
    dropout:         see `worker.zoo.lstm.LanguageModel`.
    vocabulary:      the most frequent so many of the 10,000 words; the others become "<unk>", so that losses of
                     different vocabularies cannot be compared.
    evaluate_tokens: evaluate on the first so many of the 73,760 words of the validation set; None: all.
    data_dir:        see `worker.zoo.text_data.penn_treebank`.

    Evaluates to the loss (nats a word) and to perplexity. The data are read, and downloaded if need be, with the
    first batch.
    """
    _check(hidden, layers, unroll, batch, dropout, evaluate_tokens)
    if not 2 <= vocabulary <= _WORDS:
        raise ConfigurationError(f"vocabulary: expected between 2 and {_WORDS} words, got {vocabulary}")

    @cache
    def corpus() -> Corpus:
        train = penn_treebank("train", data_dir)
        numbers = numbered(count_words(train), most=vocabulary)
        return Corpus(vocabulary, encode(train, numbers), encode(penn_treebank("valid", data_dir), numbers))

    def evaluate(module: nn.Module) -> dict[str, float]:
        loss = _evaluated(module, corpus(), evaluate_tokens)
        return {"loss": loss, "perplexity": perplexity(loss)}

    return _task(
        corpus, lambda: LanguageModel(vocabulary, hidden, layers, dropout, forget=0.0), batch, unroll, evaluate
    )


def parsing_lstm(
    hidden: int = 500,
    layers: int = 3,
    unroll: int = 50,
    batch: int = 20,
    dropout: float = 0.0,
    at_least: int = 10,
    evaluate_tokens: int | None = None,
    treebank: str | None = None,
    data_dir: Path | None = None,
) -> Task:
    """Return constituency parsing as language modelling of linearised trees, with an LSTM (Choe and Charniak 2016).

    hidden, layers:  of the LSTM; the paper's is 3 × 500.
    unroll, batch:   tokens a row and rows a gradient, as in `character_lstm`.
    dropout:         see `worker.zoo.lstm.LanguageModel`.
    at_least:        words that occur less often become "<unk>".
    evaluate_tokens: evaluate on the first so many held-out tokens; None: all.
    treebank:        a folder or zip archive of Penn-style `.mrg` files, see `worker.zoo.treebank.treebank_corpus`,
                     which also says what is held out.
    data_dir:        where to look if no treebank is named.

    Evaluates to the loss (nats a token) and to perplexity. The treebank decides the vocabulary, and so the
    model: every process of a run reads it.
    """
    _check(hidden, layers, unroll, batch, dropout, evaluate_tokens)
    if at_least < 1:
        raise ConfigurationError(f"at_least: expected 1 or more, got {at_least}")

    @cache
    def corpus() -> Corpus:
        return treebank_corpus(treebank, data_dir, at_least)

    def evaluate(module: nn.Module) -> dict[str, float]:
        loss = _evaluated(module, corpus(), evaluate_tokens)
        return {"loss": loss, "perplexity": perplexity(loss)}

    return _task(corpus, lambda: LanguageModel(corpus().vocabulary, hidden, layers, dropout), batch, unroll, evaluate)


@cache
def _shakespeare() -> Corpus:
    """The characters as numbers, in the order of their codes; the last 5 % are held out."""
    characters = np.frombuffer(tinyshakespeare().encode(), np.uint8)
    known, numbers = np.unique(characters, return_inverse=True)
    text = torch.from_numpy(numbers.astype(np.int32))
    end = len(text) * 19 // 20
    return Corpus(len(known), text[:end], text[end:])


def _task(
    corpus: Callable[[], Corpus],
    model: Callable[[], LanguageModel],
    batch: int,
    sequence: int,
    evaluate: Callable[[nn.Module], dict[str, float]],
) -> Task:
    def loss(module: nn.Module, passage: tuple[Tensor, Tensor], state: State) -> tuple[Tensor, State]:
        return _language_model(module).loss(*passage, state)

    return Task(
        model=model,
        loss=loss,
        batches=lambda shard: passages(shard, corpus().train, batch, sequence),
        evaluate=evaluate,
        state=lambda module: _language_model(module).fresh_state(batch),
    )


def _language_model(module: nn.Module) -> LanguageModel:
    if not isinstance(module, LanguageModel):
        raise TypeError(f"expected a LanguageModel, got {type(module).__name__}")
    return module


def _evaluated(module: nn.Module, corpus: Corpus, count: int | None) -> float:
    return held_out_loss(_language_model(module), _held_out(corpus, count))


def _held_out(corpus: Corpus, count: int | None) -> Tensor:
    return corpus.held_out if count is None else corpus.held_out[: count + 1]


def _check(hidden: int, layers: int, sequence: int, batch: int, dropout: float, evaluate_tokens: int | None) -> None:
    numbers = {"hidden": hidden, "layers": layers, "sequence or unroll": sequence, "batch": batch}
    if evaluate_tokens is not None:
        numbers["evaluate_tokens"] = evaluate_tokens
    for name, number in numbers.items():
        if number < 1:
            raise ConfigurationError(f"{name}: expected 1 or more, got {number}")
    if not 0 <= dropout < 1:
        raise ConfigurationError(f"dropout: expected at least 0 and less than 1, got {dropout}")
