"""A language model: LSTM layers that read tokens and predict the next, with their state in the caller's hands."""

from __future__ import annotations

import math
import warnings

from torch import Tensor, nn
from torch.nn import functional

State = tuple[Tensor, Tensor]
"""Hidden and cell values, float32 [layers, batch, hidden] each."""

_RANGE = 0.1
"""Weights start uniform in ± this (Zaremba et al. 2014)."""

_ROWS, _STRIDE = 10, 100
"""A held-out text is evaluated in so many rows, read side by side, so many tokens at once."""


class LanguageModel(nn.Module):
    """Embedding, LSTM layers of `hidden` units, and a linear layer to the scores of the next token.

    vocabulary: number of tokens.
    dropout:    share of values dropped at the embedding and above every layer, never between time steps.
    forget:     first bias of the forget gates; 1 lets a new model remember.
    """

    def __init__(self, vocabulary: int, hidden: int, layers: int, dropout: float = 0.0, forget: float = 1.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(hidden, hidden, layers, dropout=between, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.scores = nn.Linear(hidden, vocabulary)
        for name, parameter in self.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            else:
                nn.init.uniform_(parameter, -_RANGE, _RANGE)
            if "bias_ih" in name:
                nn.init.constant_(parameter[hidden : 2 * hidden], forget)  # torch's order: input, forget, cell, output

    def fresh_state(self, batch: int) -> State:
        """Return zeros: nothing has been read."""
        size = (self.lstm.num_layers, batch, self.lstm.hidden_size)
        zeros = self.scores.weight.new_zeros(size, requires_grad=False)
        return zeros, zeros.clone()

    def forward(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Return scores, float32 [batch, sequence, vocabulary], of what follows each of `tokens`, and the state after.

        tokens: integers [batch, sequence].
        """
        with warnings.catch_warnings():
            # On a GPU cuDNN wants the weights in an order of its own; ours lie in the flat vector, and are copied.
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
            outputs, after = self.lstm(self.drop(self.embedding(tokens)), state)
        return self.scores(self.drop(outputs)), after

    def loss(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the mean over all tokens of −log p(target), in nats, and the state after."""
        scores, after = self(tokens, state)
        return functional.cross_entropy(scores.flatten(0, 1).float(), targets.flatten()), after


def held_out_loss(model: LanguageModel, tokens: Tensor) -> float:
    """Return the mean of −log p over `tokens` (integers [n], n ≥ 2), in nats; the state is carried all along.

    The text is cut into ten rows that are read side by side, so ten of its tokens are read without their past.
    """
    rows = min(_ROWS, len(tokens) - 1)
    each = (len(tokens) - 1) // rows
    device = model.scores.weight.device
    inputs = tokens[: rows * each].view(rows, each).long().to(device)
    targets = tokens[1 : rows * each + 1].view(rows, each).long().to(device)
    state, total = model.fresh_state(rows), 0.0
    for first in range(0, each, _STRIDE):
        span = slice(first, first + _STRIDE)
        mean, state = model.loss(inputs[:, span], targets[:, span], state)
        total += mean.item() * inputs[:, span].numel()
    return total / (rows * each)


def perplexity(loss: float) -> float:
    """Return exp(loss), kept finite for a model that has diverged."""
    return math.exp(min(loss, 700.0))
