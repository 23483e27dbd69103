"""A layer's hand-written halves and their gradients against plain operations and autograd's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.model.encoder.cpu.blocks import (
    BlockShape,
    RowSelection,
    SavedActivations,
    SequenceBlock,
    SparseGradient,
)
from training.model.encoder.cpu.half_layers import FeedForward, PerCandidateAttention
from training.model.encoder.cpu.matrix_products import padded
from training.model.encoder.cpu.parameters import AttentionParameters, FeedForwardParameters

B, S, D, HIDDEN = 5, 60, 12, 5
NUM_ROWS = B * S  # without filling


def parameters_of(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def detached(kind: type, parameters: list[Tensor]) -> object:
    return kind(*(parameter.detach() for parameter in parameters))


def plain_attention(
    x: Tensor, query_w: Tensor, query_b: Tensor, value_w: Tensor, value_b: Tensor, hidden: Tensor
) -> Tensor:
    scores = F.linear(x, query_w, query_b) @ x.transpose(1, 2)
    shares = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
    return x + shares @ F.linear(x, value_w, value_b)


def plain_feed_forward(x: Tensor, *parameters: Tensor) -> Tensor:
    norm_w, norm_b, in_w, in_b, out_w, out_b, last_w, last_b = parameters
    normed = F.layer_norm(x, (D,), norm_w, norm_b)
    hidden = F.relu(F.linear(normed, in_w, in_b))
    return F.layer_norm(normed + F.linear(hidden, out_w, out_b), (D,), last_w, last_b)


def filled_up(rows: Tensor) -> Tensor:
    missing = padded(len(rows)) - len(rows)
    assert missing > 0  # or the test does not show what it should
    return F.pad(rows, (0, 0, 0, missing))


def whole_gradient() -> tuple[SparseGradient, Tensor]:
    gradient_BSD = torch.randn(B, S, D, dtype=torch.float64)
    return SparseGradient(
        filled_up(gradient_BSD.flatten(0, 1)), RowSelection(BlockShape(B, S), None)
    ), gradient_BSD


def gradient_at_some() -> tuple[SparseGradient, Tensor]:
    """Return the gradient of 25 positions of each sequence, in no order, and of all."""
    position = torch.stack([torch.randperm(S)[:25] for _ in range(B)])
    rows = torch.randn(B * 25, D, dtype=torch.float64)
    place = (position + S * torch.arange(B)[:, None]).flatten()
    whole = torch.zeros(B * S, D, dtype=torch.float64).index_copy(0, place, rows)
    place = F.pad(place, (0, padded(len(place)) - len(place)))
    selection = RowSelection(BlockShape(B, 25), place)
    return SparseGradient(filled_up(rows), selection), whole.view(B, S, D)


@pytest.fixture(params=[whole_gradient, gradient_at_some])
def gradient(request: pytest.FixtureRequest) -> tuple[SparseGradient, Tensor]:
    torch.manual_seed(7)
    return request.param()


def whole(gradient: SparseGradient) -> Tensor:
    total = torch.zeros(padded(NUM_ROWS), D, dtype=torch.float64)
    gradient.add_to(total)
    return total[:NUM_ROWS]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("is_hidden", [True, False])
def test_attention_is_the_plain_one(
    gradient: tuple[SparseGradient, Tensor], is_hidden: bool
) -> None:
    torch.manual_seed(8)
    x, *parameters = parameters_of((B, S, D), (D, D), (D,), (D, D), (D,))
    hidden = (torch.rand(B, 1, S) < 0.2) & torch.tensor(is_hidden)
    mask = torch.zeros(B, 1, S, dtype=torch.float64).masked_fill(hidden, float("-inf"))
    block = SequenceBlock(slice(0, B), slice(0, 1), BlockShape(B, S), mask if is_hidden else None)
    expected = plain_attention(x, *parameters, hidden)
    attention = PerCandidateAttention(detached(AttentionParameters, parameters), None)
    entered = filled_up(x.detach().flatten(0, 1))
    found, mixed = attention.forward(entered, block)
    assert_same([found[:NUM_ROWS]], [expected.flatten(0, 1)])
    attention.start_backward()
    saved = SavedActivations(
        entered, mixed, entered, entered, entered
    )  # only the first two are read
    saved = saved.take(gradient[0].selection)
    to_x = whole(attention.backward(gradient[0], saved, block)).view(B, S, D)
    expected_gradients = torch.autograd.grad(expected, [x, *parameters], gradient[1])
    assert_same([to_x, *attention.finish_backward()], list(expected_gradients))


def test_feed_forward_is_the_plain_one(gradient: tuple[SparseGradient, Tensor]) -> None:
    torch.manual_seed(9)
    shapes = [(B, S, D), (D,), (D,), (HIDDEN, D), (HIDDEN,), (D, HIDDEN), (D,), (D,), (D,)]
    x, *parameters = parameters_of(*shapes)
    expected = plain_feed_forward(x, *parameters)
    feed_forward = FeedForward(detached(FeedForwardParameters, parameters), None)
    sums = filled_up(x.detach().flatten(0, 1))
    found, mean, scale = feed_forward.forward(sums)
    assert_same([found[:NUM_ROWS]], [expected.flatten(0, 1)])
    feed_forward.start_backward()
    saved = SavedActivations(None, sums, sums, mean, scale).take(gradient[0].selection)
    to_x = whole(feed_forward.backward(gradient[0], saved)).view(B, S, D)
    expected_gradients = torch.autograd.grad(expected, [x, *parameters], gradient[1])
    assert_same([to_x, *feed_forward.finish_backward()], list(expected_gradients))
