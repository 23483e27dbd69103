"""All layers of the sequence encoder and its output columns as one step of autograd, for CPUs.

A block of sequences goes through both halves of every layer, forward and backward, before the next
block does, so that most of what is moved stays in the caches. The max pool passes a gradient to
some positions only, and the last layer's backward pass computes nothing for the others.

Not for the halves: those are `training.model.encoder.cpu.half_layers` and
`training.model.encoder.cpu.shared_attention`.

Letters: R requests, S tokens, M candidates of a request, B sequences, N rows (B S and filling), A
selected positions of a sequence, D token width, K newest actions.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.model.encoder.cpu.blocks import (
    BlockShape,
    RowSelection,
    SavedActivations,
    SequenceBlock,
    SparseGradient,
    in_requests,
    in_sequences,
    make_blocks,
)
from training.model.encoder.cpu.factors import Factors
from training.model.encoder.cpu.half_layers import FeedForward, PerCandidateAttention
from training.model.encoder.cpu.matrix_products import padded
from training.model.encoder.cpu.parameters import AttentionParameters, FeedForwardParameters
from training.model.encoder.cpu.shared_attention import SharedAttention
from training.model.encoder.output_columns import columns_and_sources
from training.model.encoder.tokens import TokenRoles

DENSE_SHARE = 0.85
"""Share of positions with a gradient above which the backward pass computes all positions, as
picking rows costs time too. Behind a max pool of 96 channels over 100 actions about two thirds of
the positions have a gradient."""


class _Layer(NamedTuple):
    attention: SharedAttention | PerCandidateAttention
    feed_forward: FeedForward


class _SavedBlock(NamedTuple):
    """What the backward pass of a block needs."""

    block: SequenceBlock
    selection: RowSelection  # positions of the last layer's output with a gradient
    rank_BKD: Tensor  # int64, which selected position of its sequence each column number is from
    layers: list[SavedActivations]


class LayerStack(torch.autograd.Function):
    """Every layer and the columns, for the candidates of requests side by side.

    There is one backward pass only, which frees what a block has saved as soon as it is used.
    """

    @staticmethod
    def forward(
        ctx: Any,
        roles: TokenRoles,
        dtype: torch.dtype | None,
        has_backward: bool,
        num_layers: int,
        *tensors: Tensor,
    ) -> Tensor:
        """Return float [R, M, 1 + K, D].

        Args:
            ctx: autograd's.
            roles: what each token is used for; requests from long to short.
            dtype: what the branches' products are computed in; None for the input's precision.
            has_backward: whether activations are saved for a backward pass.
            num_layers: at least one.
            tensors: `Factors` and `FeedForwardParameters` of the first layer, then
                `AttentionParameters` and `FeedForwardParameters` of each later one, in one row, as
                autograd wants them.
        """
        layers = _layers(num_layers, tensors, dtype)
        own_value_RMD = _next(Factors, iter(tensors)).own_value_RMD
        num_requests, num_candidates, width = own_value_RMD.shape
        num_columns = 1 + roles.newest_RK.shape[1]
        out = own_value_RMD.new_empty(num_requests, num_candidates, num_columns, width)
        ctx.saved_blocks = []
        for block in make_blocks(num_candidates, roles.num_tokens_R.tolist(), roles.log_count_RS):
            tokens_ND, saved = _forward(layers, block)
            out[block.requests, block.candidates], source = columns_and_sources(
                in_requests(tokens_ND, block),
                roles.num_pooled_R[block.requests],
                roles.newest_RK[block.requests],
            )
            if has_backward:
                selection, rank_BKD = _with_gradient(source.flatten(0, 1), block)
                saved[-1] = saved[-1].take(selection)
                ctx.saved_blocks.append(_SavedBlock(block, selection, rank_BKD, saved))
        ctx.save_for_backward(*tensors)
        ctx.dtype, ctx.num_layers = dtype, num_layers
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch has no types for it
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the factors and the parameters.

        Raises:
            RuntimeError: called again.
        """
        if not ctx.saved_blocks:
            raise RuntimeError(
                "a second backward pass through the encoder; expected one per forward pass, as its "
                "activations are gone: call the encoder again"
            )
        # it may be called within an autocast
        with torch.autocast("cpu", enabled=False):
            return None, None, None, None, *_backward_of_all(ctx, gradients[0])


def _backward_of_all(ctx: Any, to_columns_RMKD: Tensor) -> list[Tensor]:
    """Return the gradients of the factors and the parameters."""
    layers = _layers(ctx.num_layers, ctx.saved_tensors, ctx.dtype)
    halves = [half for layer in layers for half in layer]
    for half in halves:
        half.start_backward()
    while ctx.saved_blocks:
        saved = ctx.saved_blocks.pop()
        to_columns = to_columns_RMKD[saved.block.requests, saved.block.candidates].flatten(0, 1)
        _backward(layers, saved, _gradient_of_tokens(to_columns, saved))
    return [gradient for half in halves for gradient in half.finish_backward()]


def _layers(num_layers: int, tensors: Iterable[Tensor], dtype: torch.dtype | None) -> list[_Layer]:
    """Return the layers that read these tensors, in the order of `LayerStack.forward`."""
    row = iter(tensors)
    attention: SharedAttention | PerCandidateAttention
    layers = []
    for place in range(num_layers):
        if place == 0:
            attention = SharedAttention(_next(Factors, row), dtype)
        else:
            attention = PerCandidateAttention(_next(AttentionParameters, row), dtype)
        layers.append(_Layer(attention, FeedForward(_next(FeedForwardParameters, row), dtype)))
    return layers


_Kind = TypeVar("_Kind", Factors, AttentionParameters, FeedForwardParameters)


def _next(kind: type[_Kind], row: Iterator[Tensor]) -> _Kind:
    """Return the next tensors of the row under the names of that kind."""
    return kind(*itertools.islice(row, len(kind._fields)))


def _forward(layers: list[_Layer], block: SequenceBlock) -> tuple[Tensor, list[SavedActivations]]:
    """Return the last layer's output, [N, D], and what each layer saves."""
    tokens_ND: Tensor | None = None
    saved = []
    for attention, feed_forward in layers:
        sums_ND, attended_ND = attention.forward(tokens_ND, block)
        out_ND, mean, scale = feed_forward.forward(sums_ND)
        saved.append(SavedActivations(tokens_ND, attended_ND, sums_ND, mean, scale))
        tokens_ND = out_ND
    assert tokens_ND is not None
    return tokens_ND, saved


def _backward(layers: list[_Layer], saved: _SavedBlock, gradient: SparseGradient) -> None:
    """Take the gradient of the last layer's output back to the factors."""
    to_output: SparseGradient | None = gradient
    for layer, of_layer in zip(layers[::-1], saved.layers[::-1], strict=True):
        assert to_output is not None  # only the first layer returns none
        to_sums = layer.feed_forward.backward(to_output, of_layer)
        to_output = layer.attention.backward(to_sums, of_layer, saved.block)


def _with_gradient(source_BKD: Tensor, block: SequenceBlock) -> tuple[RowSelection, Tensor]:
    """Return the positions that some column took a number from: only these have a gradient.

    Args:
        source_BKD: int64 [B, 1 + K, D], the tokens that the columns' numbers are from.
        block: the sequences.

    Returns:
        The selection, and int64 [B, 1 + K, D]: which of its sequence's A selected positions each
        number is from.
    """
    num_sequences, num_tokens = block.shape
    is_used_BS = torch.zeros(block.shape, dtype=torch.uint8)
    is_used_BS.scatter_(1, source_BKD.flatten(1), 1)
    num_selected = int(is_used_BS.sum(dim=1).max())
    if num_selected > DENSE_SHARE * num_tokens:
        return RowSelection(block.shape, None), source_BKD
    position_BA = torch.topk(is_used_BS, num_selected, dim=1, sorted=False).indices
    rank_BS = torch.empty(block.shape, dtype=torch.int64)
    rank_BS.scatter_(1, position_BA, torch.arange(num_selected).expand_as(position_BA))
    first_row_B1 = num_tokens * torch.arange(num_sequences)[:, None]
    row_N = torch.zeros(padded(position_BA.numel()), dtype=torch.int64)
    row_N[: position_BA.numel()] = (position_BA + first_row_B1).flatten()
    rank_BKD = rank_BS.gather(1, source_BKD.flatten(1)).view_as(source_BKD)
    return RowSelection(BlockShape(num_sequences, num_selected), row_N), rank_BKD


def _gradient_of_tokens(to_columns_BKD: Tensor, saved: _SavedBlock) -> SparseGradient:
    """Return the gradient of the selected positions, given that of the columns."""
    num_rows = padded(saved.selection.shape.num_rows)
    rows_ND = to_columns_BKD.new_zeros(num_rows, to_columns_BKD.shape[2])
    rows_BAD = in_sequences(rows_ND, saved.selection.shape)
    rows_BAD.scatter_add_(1, saved.rank_BKD, to_columns_BKD)
    return SparseGradient(rows_ND, saved.selection)
