"""From words to batches: vocabularies, and the places in a text that each worker reads, step after step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from psserver.errors import DataError
from worker.task import Shard
from worker.zoo.stream import generator

UNKNOWN = "<unk>"
END = "<eos>"


@dataclass(frozen=True)
class Corpus:
    """A text as numbers below `vocabulary`: what is trained on and what is held out, int32 [tokens] each."""

    vocabulary: int
    train: Tensor
    held_out: Tensor


def numbered(counts: Mapping[str, int], most: int | None = None, at_least: int = 1) -> dict[str, int]:
    """Return the vocabulary: words -> numbers from 0, frequent ones first, equally frequent ones by the alphabet.

    most:     keep so many words at most.
    at_least: leave out words that are rarer.

    `UNKNOWN` is always there, and stands for all that are left out.
    """
    left = {word: count for word, count in counts.items() if count >= at_least or word == UNKNOWN}
    left.setdefault(UNKNOWN, 0)
    order = sorted(left, key=lambda word: (-left[word], word))
    kept = order if most is None else order[:most]
    if UNKNOWN not in kept:
        kept[-1] = UNKNOWN
    return {word: number for number, word in enumerate(kept)}


def count_words(words: Iterable[str]) -> Mapping[str, int]:
    """How often each word occurs."""
    return Counter(words)


def encode(words: Iterable[str], vocabulary: Mapping[str, int]) -> Tensor:
    """Return the numbers of `words`, int32 [words]."""
    unknown = vocabulary[UNKNOWN]
    return torch.tensor([vocabulary.get(word, unknown) for word in words], dtype=torch.int32)


def passages(shard: Shard, tokens: Tensor, batch: int, sequence: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (inputs, targets), int64 [batch, sequence] each, from position `shard.start` on, without end.

    Each row of the batch reads on from where it stopped at the position before; targets are one token ahead.
    The rows begin at equal distances, turned by an offset drawn for (seed, rank): every worker reads all of
    the text, at places of its own. The text is a ring, after whose last token comes its first.
    """
    length = len(tokens)
    if length < 2:
        raise DataError(f"a text of {length} tokens is too short to read from: expected 2 or more")
    turn = int(torch.randint(length, (), generator=generator("passages", shard.seed, shard.rank)))
    rows = turn + torch.arange(batch) * length // batch
    ahead = rows[:, None] + torch.arange(sequence + 1)
    position = shard.start
    while True:
        read = tokens[(ahead + position * sequence) % length].long()
        yield read[:, :-1], read[:, 1:]
        position += 1


def random_passages(shard: Shard, tokens: Tensor, batch: int, sequence: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (inputs, targets), int64 [batch, sequence] each, from position `shard.start` on, without end.

    Each row begins anywhere in the text, drawn for (seed, rank, position); targets are one token ahead. For models
    that keep nothing from one batch to the next.
    """
    starts = len(tokens) - sequence
    if starts < 1:
        raise DataError(f"a text of {len(tokens)} tokens is too short: expected {sequence + 1} or more")
    ahead = torch.arange(sequence + 1)
    position = shard.start
    while True:
        draw = generator("random passages", shard.seed, shard.rank, position)
        read = tokens[torch.randint(starts, (batch, 1), generator=draw) + ahead].long()
        yield read[:, :-1], read[:, 1:]
        position += 1
