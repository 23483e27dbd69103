"""All layers of the sequence encoder and its output columns as one step of autograd, for CPUs.

Some sequences at a time go through both halves of every layer, on the way there and on the way
back, so that most of what is moved stays in the caches. Behind the max pool a gradient stands at
some positions only; for the others the last layer's backward pass computes nothing.

Not for the halves: those are `training.model.encoder.cpu.fused_layers` and
`training.model.encoder.cpu.shared_attention`.

Letters: R requests, S actions, M candidates of a request, B sequences, N rows (B S and filling), A
positions of a sequence that have a gradient, D token width, K newest.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.model.encoder.columns import max_and_newest
from training.model.encoder.cpu.fused_layers import FeedForward, OwnAttention
from training.model.encoder.cpu.matrix_products import padded
from training.model.encoder.cpu.parts import (
    Gradient,
    Kept,
    Part,
    Positions,
    in_requests,
    in_sequences,
    make_parts,
)
from training.model.encoder.cpu.shared_attention import Factors, SharedAttention

DENSE_SHARE = 0.85
"""Share of positions with a gradient above which the backward pass takes all, as picking rows costs
time too. Behind a max pool of 96 channels over 100 actions about two thirds of them have one."""


class Columns(NamedTuple):
    """What is looked at, and what is put out."""

    mask_RS: Tensor | None  # as of `TransformerLayer.forward`; a bool one takes plain layers
    num_tokens_R: Tensor  # int64, the actions from the front that are computed
    num_pooled_R: Tensor  # int64, the positions from the front that are pooled, at least one
    index_RK: Tensor  # int64, where the newest actions stand


class LayerStack(torch.autograd.Function):
    """Every layer and the columns, for the candidates of requests side by side.

    One backward pass: what it needs is let go part by part.
    """

    @staticmethod
    def forward(
        ctx: Any,
        columns: Columns,
        dtype: torch.dtype | None,
        is_kept: bool,
        *factors_and_parameters: Tensor,
    ) -> Tensor:
        """Return float [R, M, 1 + K, D].

        Args:
            ctx: autograd's.
            columns: what is put out.
            dtype: what the products are computed in, or None.
            is_kept: whether there will be a backward pass.
            factors_and_parameters: the six `Factors`, then of each layer weights and biases: of
                queries and values (not of the first layer), and the feed-forward part's eight.
        """
        layers = _layers(factors_and_parameters, dtype)
        _, by_candidate_RMS, _, own_value_RMD, *_ = factors_and_parameters
        num_requests, num_candidates, _ = by_candidate_RMS.shape
        num_columns, width = 1 + columns.index_RK.shape[1], own_value_RMD.shape[2]
        out = own_value_RMD.new_empty(num_requests, num_candidates, num_columns, width)
        ctx.kept = []
        for part in make_parts(num_candidates, columns.num_tokens_R.tolist(), columns.mask_RS):
            tokens_ND, kept = _through(layers, part)
            out[part.requests, part.candidates], place = max_and_newest(
                in_requests(tokens_ND, part),
                columns.num_pooled_R[part.requests],
                columns.index_RK[part.requests],
            )
            if is_kept:
                positions, rank_BKD = _used(place.flatten(0, 1), part)
                kept[-1] = kept[-1].take(positions)
                ctx.kept.append((part, positions, rank_BKD, kept))
        ctx.save_for_backward(*factors_and_parameters)
        ctx.dtype = dtype
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch has no types for it
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the factors and the parameters.

        Raises:
            RuntimeError: called again.
        """
        if not ctx.kept:
            raise RuntimeError(
                "a second backward pass through the encoder; expected one per forward pass, as its "
                "activations are gone: call the encoder again"
            )
        # it may be called within an autocast
        with torch.autocast("cpu", enabled=False):
            return None, None, None, *_all_back(ctx, gradients[0])


def _all_back(ctx: Any, to_columns_RMKD: Tensor) -> list[Tensor]:
    """Return the gradients of the factors and the parameters."""
    layers = _layers(ctx.saved_tensors, ctx.dtype)
    halves = [half for layer in layers for half in layer]
    for half in halves:
        half.start_backward()
    while ctx.kept:
        part, positions, rank_BKD, kept = ctx.kept.pop()
        to_columns = to_columns_RMKD[part.requests, part.candidates].flatten(0, 1)
        _back(layers, kept, _to_positions(to_columns, rank_BKD, positions), part)
    return [gradient for half in halves for gradient in half.finish_backward()]


Layer = tuple[SharedAttention | OwnAttention, FeedForward]


def _layers(tensors: Sequence[Tensor], dtype: torch.dtype | None) -> list[Layer]:
    factors, rest = Factors(*tensors[:6]), tensors[6:]
    layers: list[Layer] = [(SharedAttention(factors, dtype), FeedForward(rest[:8], dtype))]
    for start in range(8, len(rest), 12):
        attention, feed_forward = rest[start : start + 4], rest[start + 4 : start + 12]
        layers.append((OwnAttention(attention, dtype), FeedForward(feed_forward, dtype)))
    return layers


def _through(layers: list[Layer], part: Part) -> tuple[Tensor, list[Kept]]:
    """Return the last layer's output, [N, D], and what each layer keeps."""
    tokens_ND: Tensor | None = None
    kept = []
    for attention, feed_forward in layers:
        sums_ND, attended_ND = attention.forward(tokens_ND, part)
        out_ND, mean, scale = feed_forward.forward(sums_ND)
        kept.append(Kept(tokens_ND, attended_ND, sums_ND, mean, scale))
        tokens_ND = out_ND
    assert tokens_ND is not None
    return tokens_ND, kept


def _back(layers: list[Layer], kept: list[Kept], gradient: Gradient, part: Part) -> None:
    """Take the gradient of the last layer's output back to the factors."""
    to_output: Gradient | None = gradient
    for (attention, feed_forward), of_layer in zip(layers[::-1], kept[::-1], strict=True):
        assert to_output is not None  # only the first layer returns none
        to_output = attention.backward(feed_forward.backward(to_output, of_layer), of_layer, part)


def _used(place_BKD: Tensor, part: Part) -> tuple[Positions, Tensor]:
    """Return the positions that got into some column: only these have a gradient.

    Args:
        place_BKD: int64 [B, 1 + K, D], the actions that the columns' numbers are from.
        part: the sequences.

    Returns:
        The positions, and int64 [B, 1 + K, D], which of its sequence's A each number is from.
    """
    num_sequences, num_actions = part.shape
    is_used_BS = torch.zeros(part.shape, dtype=torch.uint8)
    is_used_BS.scatter_(1, place_BKD.flatten(1), 1)
    num_positions = int(is_used_BS.sum(dim=1).max())
    if num_positions > DENSE_SHARE * num_actions:
        return Positions(part.shape, None), place_BKD
    position_BA = torch.topk(is_used_BS, num_positions, dim=1, sorted=False).indices
    rank_BS = torch.empty(part.shape, dtype=torch.int64)
    rank_BS.scatter_(1, position_BA, torch.arange(num_positions).expand_as(position_BA))
    first_row_B1 = num_actions * torch.arange(num_sequences)[:, None]
    place_N = torch.zeros(padded(position_BA.numel()), dtype=torch.int64)
    place_N[: position_BA.numel()] = (position_BA + first_row_B1).flatten()
    rank_BKD = rank_BS.gather(1, place_BKD.flatten(1)).view_as(place_BKD)
    return Positions((num_sequences, num_positions), place_N), rank_BKD


def _to_positions(to_columns_BKD: Tensor, rank_BKD: Tensor, positions: Positions) -> Gradient:
    """Return the gradient of the positions, given that of the columns."""
    num_sequences, num_positions = positions.shape
    rows_ND = to_columns_BKD.new_zeros(
        padded(num_sequences * num_positions), to_columns_BKD.shape[2]
    )
    in_sequences(rows_ND, positions.shape).scatter_add_(1, rank_BKD, to_columns_BKD)
    return Gradient(rows_ND, positions)
