"""The halves of a layer, attention and feed-forward, forward and backward, for CPUs.

On a CPU the plain layers spend most of their time moving activations, not multiplying. These halves
save little more than their input, and their backward pass computes the rest again. This module has
the attention of a later layer and the feed-forward half of every layer. The attention of the first
layer is `training.model.encoder.cpu.shared_attention`, because its candidates share most of it. The
halves are joined in `training.model.encoder.cpu.layer_stack`.

Inputs are float32 or float64. With a `dtype` (bfloat16) the attention branch and the feed-forward
branch are computed in it, with sums in float32 where the hardware does so. The residual sums, to
which the branches are added, and the norms keep the input's precision.

Letters: S tokens, B sequences, N rows (B S and filling), A selected positions of a sequence, D
token width, F feed-forward width.
"""

from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from training.model.encoder.cpu.blocks import (
    BlockShape,
    RowSelection,
    SavedActivations,
    SequenceBlock,
    SparseGradient,
    cast,
    empty_rows,
    in_sequences,
)
from training.model.encoder.cpu.matrix_products import linear, linear_plus
from training.model.encoder.cpu.parameters import AttentionParameters, FeedForwardParameters

_EPSILON = 1e-5  # nn.LayerNorm's
_ALL = [True, True, True]
_norm = torch.ops.aten.native_layer_norm
_norm_backward = torch.ops.aten.native_layer_norm_backward

Parameters = TypeVar("Parameters", AttentionParameters, FeedForwardParameters)


class HalfLayer(Generic[Parameters]):
    """Parameters whose gradients are summed over blocks."""

    def __init__(self, parameters: Parameters, dtype: torch.dtype | None) -> None:
        """Take the parameters.

        Args:
            parameters: of this half.
            dtype: what the branch's products are computed in; None for the input's precision.
        """
        self._parameters: Parameters = parameters
        self._branch: Parameters = type(parameters)(*(cast(tensor, dtype) for tensor in parameters))
        self._dtype = dtype

    def start_backward(self) -> None:
        """Set the gradients to zero."""
        zeros = (torch.zeros_like(parameter) for parameter in self._parameters)
        self._gradients: Parameters = type(self._parameters)(*zeros)

    def finish_backward(self) -> Parameters:
        """Return the parameters' gradients, once all blocks have gone back."""
        return self._gradients

    def _add(self, gradients: Parameters) -> None:
        for total, of_block in zip(self._gradients, gradients, strict=True):
            total.add_(of_block)


class PerCandidateAttention(HalfLayer[AttentionParameters]):
    """A later layer up to its first norm: x + Wv softmax((Wq x + bq) x') x + bv.

    The value matrix is multiplied by the mean of x and not by x. So the backward pass has no
    product with it over positions without a gradient.
    """

    def forward(self, x_ND: Tensor | None, block: SequenceBlock) -> tuple[Tensor, Tensor]:
        """Return the sums, and each position's mean of x by its attention, float [N, D]."""
        assert x_ND is not None  # only the first layer has no layer before it
        x = cast(x_ND, self._dtype)
        _, weights = self._attend(x, x, block.shape, block)
        mean = empty_rows(block.shape.num_rows, x)
        torch.bmm(weights, in_sequences(x, block.shape), out=in_sequences(mean, block.shape))
        return linear_plus(mean, self._branch.value_w_DD, self._branch.value_b_D, x_ND), mean

    def backward(
        self, gradient: SparseGradient, saved: SavedActivations, block: SequenceBlock
    ) -> SparseGradient:
        """Return the input's gradient, and add to the parameters' gradients."""
        assert saved.input_ND is not None
        # Without a gradient of its output a position's query gets none, but its key still may.
        shape, selected = block.shape, gradient.selection.shape
        x, grad = cast(saved.input_ND, self._dtype), cast(gradient.rows_ND, self._dtype)
        queried, x_BSD = gradient.selection.take(x), in_sequences(x, shape)
        query_BAD, weights = self._attend(queried, x, selected, block)
        to_mean_BAD = in_sequences(linear(grad, self._branch.value_w_DD.T), selected)
        to_weights = to_mean_BAD @ x_BSD.transpose(1, 2)
        to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
        to_query = empty_rows(selected.num_rows, x)
        torch.bmm(to_scores, x_BSD, out=in_sequences(to_query, selected))
        to_x = empty_rows(shape.num_rows, x)
        to_x_BSD = in_sequences(to_x, shape)
        torch.bmm(to_scores.transpose(1, 2), query_BAD, out=to_x_BSD)
        to_x_BSD.baddbmm_(weights.transpose(1, 2), to_mean_BAD)
        self._add(
            AttentionParameters(
                query_w_DD=to_query.T @ queried,
                query_b_D=to_query.sum(0),
                value_w_DD=grad.T @ saved.attended_ND,
                value_b_D=grad.sum(0),
            )
        )
        to_queried = linear_plus(to_query, self._branch.query_w_DD.T, None, gradient.rows_ND)
        to_x = to_x.to(saved.input_ND.dtype)
        gradient._replace(rows_ND=to_queried).add_to(to_x)
        return SparseGradient(to_x, RowSelection(shape, None))

    def _attend(
        self, queried: Tensor, x: Tensor, selected: BlockShape, block: SequenceBlock
    ) -> tuple[Tensor, Tensor]:
        """Return queries, [B, A, D], and each query's attention weights, [B, A, S]."""
        rows = linear(queried, self._branch.query_w_DD, self._branch.query_b_D)
        query = in_sequences(rows, selected)
        scores = query @ in_sequences(x, block.shape).transpose(1, 2)
        if block.log_count_B1S is not None:
            scores += block.log_count_B1S.to(scores.dtype)
        return query, torch.softmax(scores, dim=-1)


class _FeedForwardSteps(NamedTuple):
    """What is computed between the first norm and the last one."""

    mean_N1: Tensor  # of the first norm
    scale_N1: Tensor
    normed_ND: Tensor  # the branch's input
    hidden_NF: Tensor
    sums_ND: Tensor  # the last norm's input


class FeedForward(HalfLayer[FeedForwardParameters]):
    """The rest of a layer: y = norm(x), then norm(y + W2 relu(W1 y + b1) + b2)."""

    def __init__(self, parameters: FeedForwardParameters, dtype: torch.dtype | None) -> None:
        """Take the parameters, as `HalfLayer` does."""
        super().__init__(parameters, dtype)
        # the norms keep the input's precision
        self._norm = parameters.norm_w_D, parameters.norm_b_D
        self._last_norm = parameters.last_norm_w_D, parameters.last_norm_b_D

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return float [N, D], and the last norm's mean and scale, [N, 1]."""
        sums = self._up_to_the_last_norm(x_ND).sums_ND
        return _norm(sums, sums.shape[1:], *self._last_norm, _EPSILON)

    def backward(self, gradient: SparseGradient, saved: SavedActivations) -> SparseGradient:
        """Return the input's gradient, and add to the parameters' gradients."""
        x = saved.sums_ND
        width = x.shape[1:]
        steps = self._up_to_the_last_norm(x)
        mean, scale = saved.last_mean_N1, saved.last_scale_N1
        to_sums, to_last_norm_w, to_last_norm_b = _norm_backward(
            gradient.rows_ND, steps.sums_ND, width, mean, scale, *self._last_norm, _ALL
        )
        to_out = to_sums.to(self._branch.in_w_FD.dtype)
        to_hidden = torch.ops.aten.threshold_backward(
            linear(to_out, self._branch.out_w_DF.T), steps.hidden_NF, 0.0
        )
        to_normed = linear_plus(to_hidden, self._branch.in_w_FD.T, None, to_sums)
        to_x, to_norm_w, to_norm_b = _norm_backward(
            to_normed, x, width, steps.mean_N1, steps.scale_N1, *self._norm, _ALL
        )
        self._add(
            FeedForwardParameters(
                norm_w_D=to_norm_w,
                norm_b_D=to_norm_b,
                in_w_FD=to_hidden.T @ steps.normed_ND,
                in_b_F=to_hidden.sum(0),
                out_w_DF=to_out.T @ steps.hidden_NF,
                out_b_D=to_sums.sum(0),
                last_norm_w_D=to_last_norm_w,
                last_norm_b_D=to_last_norm_b,
            )
        )
        return gradient._replace(rows_ND=to_x)

    def _up_to_the_last_norm(self, x: Tensor) -> _FeedForwardSteps:
        branch = self._branch
        stream, mean, scale = _norm(x, x.shape[1:], *self._norm, _EPSILON)
        normed = stream.to(branch.in_w_FD.dtype)
        # Not oneDNN's ReLU, which turns NaN into 0.
        hidden = linear(normed, branch.in_w_FD, branch.in_b_F).relu_()
        sums = linear_plus(hidden, branch.out_w_DF, branch.out_b_D, stream)
        return _FeedForwardSteps(mean, scale, normed, hidden, sums)
