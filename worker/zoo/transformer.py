"""A decoder-only transformer that reads a passage of tokens and predicts, at each place, the one after it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_SPREAD = 0.02
"""Standard deviation of a weight at first."""

_ROWS = 64
"""A held-out text is evaluated so many passages at once."""


class Attention(nn.Module):
    """Causal self-attention: a place sees itself and the places before it."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.asked = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [batch, sequence, hidden] -> the same shape."""
        queries, keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.asked(x).chunk(3, dim=2)
        )
        dropout = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=True)
        projected: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return projected


class Block(nn.Module):
    """Attention, then two linear layers at each place; each reads a normalised copy and adds to what it read."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.before_attention, self.before_linear = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention = Attention(hidden, heads, dropout)
        self.linear = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [batch, sequence, hidden] -> the same shape."""
        x = x + self.drop(self.attention(self.before_attention(x)))
        sum_: Tensor = x + self.drop(self.linear(self.before_linear(x)))
        return sum_


class Transformer(nn.Module):
    """Embeddings of tokens and of places, `layers` blocks, a normalisation, and a linear layer to the scores.

    vocabulary: number of tokens.
    hidden:     width of the stream that the blocks add to, a multiple of `heads`.
    sequence:   longest passage, for each place has an embedding of its own.
    dropout:    share dropped of the embeddings, of the attention's weights and of what a block adds.

    Weights start gaussian with deviation 0.02; those whose results are added to the stream start smaller by
    √(2 layers), so that its variance does not grow with depth (Radford et al. 2019).
    """

    def __init__(
        self, vocabulary: int, hidden: int, layers: int, heads: int, sequence: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, hidden)
        self.place = nn.Embedding(sequence, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.scores = nn.Linear(hidden, vocabulary)
        self.drop = nn.Dropout(dropout)
        for name, parameter in self.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                added = name.endswith(("attention.out.weight", "linear.2.weight"))
                nn.init.normal_(parameter, std=_SPREAD / math.sqrt(2 * layers) if added else _SPREAD)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores, float32 [batch, n, vocabulary], of what follows each of `tokens`, integers [batch, n]."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.drop(self.token(tokens) + self.place(places))
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.scores(self.norm(x))
        return scores

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over all tokens of −log p(target), in nats; integers [batch, n] each."""
        return functional.cross_entropy(self(tokens).flatten(0, 1).float(), targets.flatten())


def held_out_loss(model: Transformer, tokens: Tensor) -> float:
    """Return the mean of −log p over `tokens` (integers [n], n ≥ 2) but the first, in nats.

    The text is cut into passages as long as the model reads, each read without what came before it.
    """
    longest = model.place.num_embeddings
    device = model.scores.weight.device
    inputs, targets = tokens[:-1].long().to(device), tokens[1:].long().to(device)
    total = 0.0
    for first in range(0, len(inputs), _ROWS * longest):
        here = slice(first, first + _ROWS * longest)
        for read, follows in zip(_rows(inputs[here], longest), _rows(targets[here], longest), strict=True):
            total += model.loss(read, follows).item() * read.numel()
    return total / len(inputs)


def _rows(tokens: Tensor, longest: int) -> list[Tensor]:
    """Cut [n] into [n // longest, longest] and what is left, [1, n % longest]; empty ones are left out."""
    whole = len(tokens) // longest * longest
    return [rows for rows in (tokens[:whole].view(-1, longest), tokens[None, whole:]) if rows.numel()]
