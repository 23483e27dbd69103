"""A layer's halves in few passes over memory, forward and backward, for CPUs.

On a CPU the plain layers spend most of their time moving activations, not multiplying. Here little
but the input of each half is kept, and the backward pass computes the rest anew. This module has a
later layer's attention and the feed-forward half. The first layer's attention, which candidates
share, is `training.model.encoder.cpu.shared_attention`; what strings the halves together is
`training.model.encoder.cpu.layer_stack`.

Inputs are float32 or float64. With a `dtype` (bfloat16) the two branches, attention and
feed-forward, are computed in it, sums in float32 where the hardware does so; the sums that the
branches are added to and the norms stay float32.

Letters: S actions, B sequences, N rows (B S and filling), A positions of a sequence that have a
gradient, D token width, F feed-forward width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.model.encoder.cpu.matrix_products import linear, linear_plus
from training.model.encoder.cpu.parts import (
    Gradient,
    Kept,
    Part,
    Positions,
    cast,
    empty_rows,
    in_sequences,
)

_EPSILON = 1e-5  # nn.LayerNorm's
_ALL = [True, True, True]
_norm = torch.ops.aten.native_layer_norm
_norm_backward = torch.ops.aten.native_layer_norm_backward


class HalfLayer:
    """What has parameters, whose gradients add up over parts."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self._gradients: list[Tensor] = []

    def start_backward(self) -> None:
        """Make room for gradients."""
        self._gradients = [torch.zeros_like(parameter) for parameter in self._parameters]

    def finish_backward(self) -> list[Tensor]:
        """Return the parameters' gradients, once all parts have gone back."""
        return self._gradients

    def _add(self, *gradients: Tensor) -> None:
        for total, part in zip(self._gradients, gradients, strict=True):
            total.add_(part)


class OwnAttention(HalfLayer):
    """A later layer up to its first norm: x + Wv softmax((Wq x + bq) x') x + bv.

    The values are what is put out, so that their product comes after the mix: the backward pass
    then has none over positions without a gradient.
    """

    def __init__(self, parameters: Sequence[Tensor], dtype: torch.dtype | None) -> None:
        """Take weight and bias of the queries and of the values; products are made in `dtype`."""
        super().__init__(parameters)
        self._branch = [cast(parameter, dtype) for parameter in parameters]
        self._dtype = dtype

    def forward(self, x_ND: Tensor | None, part: Part) -> tuple[Tensor, Tensor]:
        """Return the sums, and what each position mixed of x, float [N, D]."""
        assert x_ND is not None  # there is a layer before
        x = cast(x_ND, self._dtype)
        _, shares = self._attend(x, x, part.shape, part)
        mixed = empty_rows(part.shape[0] * part.shape[1], x)
        torch.bmm(shares, in_sequences(x, part.shape), out=in_sequences(mixed, part.shape))
        value_w, value_b = self._branch[2:]
        return linear_plus(mixed, value_w, value_b, x_ND), mixed

    def backward(self, gradient: Gradient, kept: Kept, part: Part) -> Gradient:
        """Return the input's gradient; those of the parameters are added up."""
        assert kept.entered_ND is not None
        # a position whose output has no gradient asked for nothing; it was still looked at
        shape, asked = part.shape, gradient.at.shape
        x, grad = cast(kept.entered_ND, self._dtype), cast(gradient.rows_ND, self._dtype)
        asking, x_BSD = gradient.at.take(x), in_sequences(x, shape)
        query_BAD, shares = self._attend(asking, x, asked, part)
        query_w, _, value_w, _ = self._branch
        to_mixed_BAD = in_sequences(linear(grad, value_w.T), asked)
        to_shares = to_mixed_BAD @ x_BSD.transpose(1, 2)
        to_scores = torch._softmax_backward_data(to_shares, shares, -1, shares.dtype)
        to_query = empty_rows(asked[0] * asked[1], x)
        torch.bmm(to_scores, x_BSD, out=in_sequences(to_query, asked))
        to_x = empty_rows(shape[0] * shape[1], x)
        to_x_BSD = in_sequences(to_x, shape)
        torch.bmm(to_scores.transpose(1, 2), query_BAD, out=to_x_BSD)
        to_x_BSD.baddbmm_(shares.transpose(1, 2), to_mixed_BAD)
        self._add(to_query.T @ asking, to_query.sum(0), grad.T @ kept.attended_ND, grad.sum(0))
        to_asking = linear_plus(to_query, query_w.T, None, gradient.rows_ND)
        to_x = to_x.to(kept.entered_ND.dtype)
        gradient._replace(rows_ND=to_asking).add_to(to_x)
        return Gradient(to_x, Positions(shape, None))

    def _attend(
        self, asking: Tensor, x: Tensor, asked: tuple[int, int], part: Part
    ) -> tuple[Tensor, Tensor]:
        """Return queries [B, A, D] and the shares of a query's mix [B, A, S]."""
        query_w, query_b, *_ = self._branch
        query = in_sequences(linear(asking, query_w, query_b), asked)
        scores = query @ in_sequences(x, part.shape).transpose(1, 2)
        if part.mask_B1S is not None:
            scores += part.mask_B1S.to(scores.dtype)
        return query, torch.softmax(scores, dim=-1)


class FeedForward(HalfLayer):
    """The rest of a layer: norm, then norm(y + W2 relu(W1 y + b1) + b2)."""

    def __init__(self, parameters: Sequence[Tensor], dtype: torch.dtype | None) -> None:
        """Take weights and biases; products are made in `dtype`.

        Args:
            parameters: those of the first norm, of the layer in [F, D] and the layer out [D, F], of
                the last norm: eight.
            dtype: None for the input's.
        """
        super().__init__(parameters)
        self._norm, self._last_norm = parameters[:2], parameters[6:]
        self._branch = [cast(parameter, dtype) for parameter in parameters[2:6]]

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return float [N, D], and the last norm's mean and scale, [N, 1]."""
        *_, sums = self._up_to_the_last_norm(x_ND)
        return _norm(sums, sums.shape[1:], *self._last_norm, _EPSILON)

    def backward(self, gradient: Gradient, kept: Kept) -> Gradient:
        """Return the input's gradient; those of the parameters are added up."""
        x, last_mean, last_scale = kept.sums_ND, kept.last_mean_N1, kept.last_scale_N1
        in_w, _, out_w, _ = self._branch
        width = x.shape[1:]
        mean, scale, normed, hidden, sums = self._up_to_the_last_norm(x)
        to_sums, *to_last_norm = _norm_backward(
            gradient.rows_ND, sums, width, last_mean, last_scale, *self._last_norm, _ALL
        )
        to_out = to_sums.to(in_w.dtype)
        to_hidden = torch.ops.aten.threshold_backward(linear(to_out, out_w.T), hidden, 0.0)
        to_normed = linear_plus(to_hidden, in_w.T, None, to_sums)
        to_x, *to_norm = _norm_backward(to_normed, x, width, mean, scale, *self._norm, _ALL)
        to_branch = to_hidden.T @ normed, to_hidden.sum(0), to_out.T @ hidden, to_sums.sum(0)
        self._add(*to_norm, *to_branch, *to_last_norm)
        return gradient._replace(rows_ND=to_x)

    def _up_to_the_last_norm(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the first norm's mean and scale, the branch's input and hidden rows, the sums."""
        in_w, in_b, out_w, out_b = self._branch
        stream, mean, scale = _norm(x, x.shape[1:], *self._norm, _EPSILON)
        normed = stream.to(in_w.dtype)
        hidden = linear(normed, in_w, in_b).relu_()  # not oneDNN's, which makes NaN 0
        return mean, scale, normed, hidden, linear_plus(hidden, out_w, out_b, stream)
