"""A model as one flat vector."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from psserver.errors import LayoutError
from worker.layout import Layout


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu())


def test_parameters_lie_one_after_the_other_under_their_names() -> None:
    layout = Layout.of(net())
    assert [(s.name, s.shape, s.offset) for s in layout.parameters] == [
        ("0.weight", (4, 3, 3, 3), 0),
        ("0.bias", (4,), 108),
        ("1.weight", (4,), 112),
        ("1.bias", (4,), 116),
        ("3.weight", (2, 16), 120),
        ("3.bias", (2,), 152),
    ]
    assert layout.size == 154


def test_a_layer_is_a_tensor_with_the_vectors_of_its_module_that_follow() -> None:
    assert Layout.of(net()).layers == (112, 8, 34), "convolution, normalisation, linear; each with its bias"
    assert Layout.of(nn.LSTM(3, 5)).layers == (60, 100, 20, 20), "no module, so each tensor by itself"
    recurrent = nn.Sequential(nn.LSTM(3, 5), nn.Linear(5, 2))
    assert Layout.of(recurrent).layers == (60, 140, 12), "what comes in; what returns, with both biases; the linear"


class Reader(nn.Module):
    """Tokens with their places, and scores; the scores' weight is the tokens' where that is asked for."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(7, 4), nn.Embedding(3, 4)
        self.bag = nn.EmbeddingBag(5, 4)
        self.scores = nn.Linear(4, 7)
        if tied:
            self.scores.weight = self.token.weight


@pytest.mark.parametrize(("tied", "embeddings", "layers"), [(False, (0, 1, 2), 4), (True, (1, 2), 4)])
def test_embeddings_are_told_by_their_module_and_one_that_has_another_use_is_none(
    tied: bool, embeddings: tuple[int, ...], layers: int
) -> None:
    layout = Layout.of(Reader(tied))
    assert (layout.embeddings, len(layout.layers)) == (embeddings, layers)
    assert Layout.of(net()).embeddings == ()
    assert Layout.of(nn.Embedding(3, 4)).embeddings == (0,)


def test_the_fan_in_of_a_layer_is_as_pytorch_counts_it() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 2), nn.Linear(6, 2), nn.Embedding(5, 7)
    )
    assert Layout.of(model).fans == (27, 0, 24, 6, 7)
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    assert [nn.init._calculate_correct_fan(weight, "fan_in") for weight in weights] == [27, 24, 6, 7]
    alone = nn.Module()
    alone.scale = nn.Parameter(torch.tensor(1.0))
    assert Layout.of(alone).fans == (0,)


def test_tensors_of_two_dimensions_or_more_are_found_in_their_places_and_embeddings_are_not() -> None:
    layout = Layout.of(net())
    for offset, shape in layout.tensors:
        assert any((s.offset, s.shape) == (offset, shape) for s in layout.parameters)
    assert [shape for _, shape in layout.tensors] == [s.shape for s in layout.parameters if len(s.shape) > 1] != []
    assert [shape for _, shape in Layout.of(Reader(tied=False)).tensors] == [(7, 4)], "the scores"
    assert [shape for _, shape in Layout.of(Reader(tied=True)).tensors] == [(7, 4)], "the tokens, which score, too"


def test_a_frozen_embedding_is_no_layer() -> None:
    model = Reader(tied=False)
    model.token.requires_grad_(False)
    assert Layout.of(model).embeddings == (0, 1)


def test_float_buffers_travel_and_integer_ones_stay() -> None:
    layout = Layout.of(net())
    assert [s.name for s in layout.buffers] == ["1.running_mean", "1.running_var"]
    assert layout.buffer_size == 8


def test_flatten_agrees_with_the_parameters_joined() -> None:
    model = net()
    joined = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    assert torch.equal(Layout.of(model).flatten(model), joined)


def test_buffers_survive_a_round_trip() -> None:
    model, layout = net(), Layout.of(net())
    vector = torch.arange(8.0)
    layout.load_buffers(model, vector)
    assert torch.equal(layout.flatten_buffers(model), vector)
    assert torch.equal(model[1].running_var, vector[4:])


def test_an_attached_model_computes_on_the_vector_and_writes_into_the_gradient() -> None:
    model, layout = net(), Layout.of(net())
    vector, gradient = layout.flatten(model), torch.zeros(layout.size)
    layout.attach(model, vector, gradient)
    vector.zero_()
    assert not any(p.any() for p in model.parameters())
    model(torch.ones(2, 3, 4, 4)).sum().backward()
    assert torch.equal(gradient[152:], torch.tensor([2.0, 2.0]))
    assert model[3].bias.grad.data_ptr() == gradient[152:].data_ptr()


def test_tied_parameters_count_once_and_stay_tied() -> None:
    model = Tied()
    layout = Layout.of(model)
    assert layout.size == 16
    layout.attach(model, layout.flatten(model), torch.zeros(16))
    assert model.first.weight is model.second.weight


def test_frozen_parameters_travel_with_the_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    layout = Layout.of(model)
    assert (layout.size, layout.buffer_size) == (4, 12)
    assert torch.equal(layout.flatten_buffers(model)[:9], model[0].weight.reshape(-1))


def test_the_digest_follows_names_and_shapes_and_nothing_else() -> None:
    torch.manual_seed(1)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    assert Layout.of(net()).digest == Layout.of(other).digest
    assert len(Layout.of(other).digest) == 64
    for changed in (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(2, 16)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(16, 2)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 2)),
    ):
        assert Layout.of(changed).digest != Layout.of(other).digest


def test_half_precision_parameters_are_refused_by_name() -> None:
    with pytest.raises(LayoutError, match=r"'0\.weight': expected float32, got bfloat16"):
        Layout.of(nn.Sequential(nn.Linear(2, 2).bfloat16()))


def test_lazy_modules_are_refused() -> None:
    with pytest.raises(LayoutError, match="lazy"):
        Layout.of(nn.LazyLinear(3))


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(LayoutError, match="no parameter"):
        Layout.of(nn.ReLU())


def test_a_vector_of_another_size_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"expected .* 154 elements, got float32 of shape \[3\]"):
        Layout.of(net()).attach(net(), torch.zeros(3), None)
