"""The encoder's layers in few passes over memory, forward and backward, for CPUs.

On a CPU the plain layers spend most of their time moving activations, not multiplying. Here the
rows are taken a cache's worth at a time through a whole block, only the block's input is kept, and
the backward pass computes the rest anew where it needs it. One attention head, no dropout; anything
else takes the plain way of `training.encoder_layers`, which gives the same numbers.

Inputs are float32 or float64. With a `dtype` (bfloat16) the two branches, attention and
feed-forward, are computed in it, sums in float32 where the hardware does so; the sums that the
branches are added to, the norms and all that is kept stay float32.

The first layer's attention, which candidates share, is `training.shared_attention`.

Letters: S actions, B sequences, N rows (B S), A positions that have a gradient, D token width,
F feed-forward width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

ROWS = 2048
"""Rows of a block that go through together: 0.8 MB of float32 at D = 96, within a core's cache."""
DENSE = 0.85
"""Share of rows with a gradient above which the backward pass takes all, as picking rows costs time
too. Behind a max pool of 96 channels over 100 actions about two thirds of them have one."""
_EPSILON = 1e-5  # nn.LayerNorm's
Gradients = tuple[Tensor | None, ...]


def cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the tensor in another precision, or itself for None."""
    return tensor if dtype is None else tensor.to(dtype)


def _plus(branch: Tensor, stream: Tensor) -> Tensor:
    """Return their sum in the stream's precision, in the branch's memory where that fits."""
    return branch.add_(stream) if branch.dtype == stream.dtype else stream + branch


class OwnAttention(torch.autograd.Function):
    """A later layer up to its first norm: x + softmax((x Wq' + bq) x') (x Wv' + bv)."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BSD: Tensor,
        query_w: Tensor,
        query_b: Tensor,
        value_w: Tensor,
        value_b: Tensor,
        hidden_B1S: Tensor | None,
        dtype: torch.dtype | None,
    ) -> Tensor:
        """Return float [B, S, D]; `hidden_B1S` is True where an action must not be looked at."""
        parameters = query_w, query_b, value_w, value_b
        ctx.save_for_backward(x_BSD, hidden_B1S, *parameters)
        ctx.dtype = dtype
        branch = [cast(parameter, dtype) for parameter in parameters]
        out = torch.empty_like(x_BSD)
        for part in _parts(x_BSD):
            hidden = None if hidden_B1S is None else hidden_B1S[part]
            x = cast(x_BSD[part], dtype)
            _, value, shares = _attention(x, x, hidden, branch)
            torch.add(x_BSD[part], shares @ value, out=out[part])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        """Return the gradients of the input and the four parameters."""
        x_BSD, hidden_B1S, *parameters = ctx.saved_tensors
        to_query_w, to_query_b, to_value_w, to_value_b = map(torch.zeros_like, parameters)
        branch = [cast(parameter, ctx.dtype) for parameter in parameters]
        to_x = torch.empty_like(x_BSD)
        for part in _parts(x_BSD):
            x, grad = cast(x_BSD[part], ctx.dtype), cast(gradients[0][part], ctx.dtype)
            hidden = None if hidden_B1S is None else hidden_B1S[part]
            rows = x.flatten(0, 1)
            # a position whose output has no gradient asked for nothing; it was still looked at
            asking = _positions_with_gradient(gradients[0][part])
            asking_x, grad = _take(x, asking), _take(grad, asking)
            query, value, shares = _attention(asking_x, x, hidden, branch)
            to_value = (shares.transpose(1, 2) @ grad).flatten(0, 1)
            to_shares = grad @ value.transpose(1, 2)
            to_scores = torch._softmax_backward_data(to_shares, shares, -1, shares.dtype)
            to_query = (to_scores @ x).flatten(0, 1)
            to_part = (to_scores.transpose(1, 2) @ query).flatten(0, 1)
            to_part.addmm_(to_value, branch[2])
            _add_at(to_part, asking, to_query @ branch[0])
            torch.add(gradients[0][part], to_part.view_as(x), out=to_x[part])
            to_query_w += to_query.T @ asking_x.flatten(0, 1)
            to_value_w += to_value.T @ rows
            to_query_b += to_query.sum(0)
            to_value_b += to_value.sum(0)
        return to_x, to_query_w, to_query_b, to_value_w, to_value_b, None, None


def _positions_with_gradient(grad_BSD: Tensor) -> Tensor | None:
    """Return the rows of [B S] to compute: all with a gradient, and as many in each sequence.

    None stands for all rows.
    """
    has_gradient_BS = _has_gradient(grad_BSD)
    most = max(1, int(has_gradient_BS.sum(dim=1).max()))
    num_sequences, length = has_gradient_BS.shape
    if most > DENSE * length:
        return None
    place_BA = torch.topk(has_gradient_BS.to(torch.uint8), most, dim=1, sorted=False).indices
    return (place_BA + length * torch.arange(num_sequences)[:, None]).flatten()


def _has_gradient(grad: Tensor) -> Tensor:
    """Return where a row, along the last dimension, is not all zeros (NaN is not zero)."""
    return grad.abs().amax(dim=-1) != 0


def _take(whole_BSD: Tensor, rows: Tensor | None) -> Tensor:
    if rows is None:
        return whole_BSD
    taken = whole_BSD.flatten(0, 1).index_select(0, rows)
    return taken.view(len(whole_BSD), -1, whole_BSD.shape[2])


def _add_at(total_ND: Tensor, rows: Tensor | None, new: Tensor) -> None:
    if rows is None:
        total_ND += new
    else:
        total_ND.index_add_(0, rows, new)


def _attention(
    asking: Tensor, x: Tensor, hidden: Tensor | None, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries [b, A, D], values [b, S, D], and the shares of each query's mix [b, A, S]."""
    query_w, query_b, value_w, value_b = parameters
    query = torch.nn.functional.linear(asking, query_w, query_b)
    value = torch.nn.functional.linear(x, value_w, value_b)
    scores = query @ x.transpose(1, 2)
    if hidden is not None and bool(hidden.any()):
        scores.masked_fill_(hidden, float("-inf"))
    return query, value, torch.softmax(scores, dim=-1)


class FeedForward(torch.autograd.Function):
    """The rest of a layer: norm, then norm(y + W2 relu(W1 y + b1) + b2)."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, *parameters_and_dtype: Any) -> Tensor:
        """Return float [N, D].

        Args:
            ctx: autograd's.
            x_ND: float [N, D].
            parameters_and_dtype: weight and bias of the first norm, of the layer in [F, D] and the
                layer out [D, F], of the second norm; then the products' dtype.
        """
        *parameters, ctx.dtype = parameters_and_dtype
        out = torch.empty_like(x_ND)
        last_mean, last_scale = x_ND.new_empty(len(x_ND), 1), x_ND.new_empty(len(x_ND), 1)
        branch = [cast(parameter, ctx.dtype) for parameter in parameters[2:6]]
        for rows in _chunks(len(x_ND)):
            *_, sums = _feed_forward(x_ND[rows], parameters[:2], branch)
            _norm.out(
                sums, sums.shape[-1:], *parameters[6:], _EPSILON,
                out0=out[rows], out1=last_mean[rows], out2=last_scale[rows],
            )  # fmt: skip
        ctx.save_for_backward(x_ND, last_mean, last_scale, *parameters)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        """Return the gradients of the input and the eight parameters."""
        x_ND, last_mean, last_scale, *parameters = ctx.saved_tensors
        to_x = torch.empty_like(x_ND)
        to_parameters = [torch.zeros_like(parameter) for parameter in parameters]
        parameters[2:6] = [cast(parameter, ctx.dtype) for parameter in parameters[2:6]]
        for rows in _chunks(len(x_ND)):
            wanted = [part[rows] for part in (gradients[0], x_ND, last_mean, last_scale)]
            kept = torch.nonzero(_has_gradient(wanted[0]))[:, 0]
            if len(kept) > DENSE * len(wanted[0]):
                to_x[rows], new = _feed_forward_backward(wanted, parameters)
            elif len(kept) == 0:
                to_x[rows] = 0.0
                continue
            else:
                wanted = [part.index_select(0, kept) for part in wanted]
                to_kept, new = _feed_forward_backward(wanted, parameters)
                to_x[rows].zero_().index_copy_(0, kept, to_kept)
            for total, part in zip(to_parameters, new, strict=True):
                total.add_(part)
        return to_x, *to_parameters, None


_ALL = [True, True, True]
_norm = torch.ops.aten.native_layer_norm
_norm_backward = torch.ops.aten.native_layer_norm_backward


def _feed_forward(
    x: Tensor, norm: Sequence[Tensor], branch: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return the first norm's mean and scale, the branch's input and hidden rows, all summed up."""
    (norm_w, norm_b), (in_w, in_b, out_w, out_b) = norm, branch
    stream, mean, scale = torch.native_layer_norm(x, x.shape[-1:], norm_w, norm_b, _EPSILON)
    normed = stream.to(in_w.dtype)
    hidden = (normed @ in_w.T).add_(in_b).relu_()
    sums = _plus((hidden @ out_w.T).add_(out_b), stream)
    return mean, scale, normed, hidden, sums


def _feed_forward_backward(
    rows: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the gradients of some rows and of the eight parameters.

    Args:
        rows: gradient of the output [n, D], input [n, D], the second norm's mean and scale [n, 1].
        parameters: as of `FeedForward`, the branch's already in the products' dtype.
    """
    grad, x, last_mean, last_scale = rows
    norm_w, norm_b, *branch, last_w, last_b = parameters
    in_w, _, out_w, _ = branch
    width = x.shape[1:]
    mean, scale, normed, hidden, sums = _feed_forward(x, (norm_w, norm_b), branch)
    to_sums, to_last_w, to_last_b = _norm_backward(
        grad, sums, width, last_mean, last_scale, last_w, last_b, _ALL
    )
    to_out = to_sums.to(in_w.dtype)
    to_hidden = torch.ops.aten.threshold_backward(to_out @ out_w, hidden, 0.0)
    to_normed = _plus(to_hidden @ in_w, to_sums)
    to_x, to_norm_w, to_norm_b = _norm_backward(
        to_normed, x, width, mean, scale, norm_w, norm_b, _ALL
    )
    first = (to_norm_w, to_norm_b, to_hidden.T @ normed, to_hidden.sum(0))
    return to_x, (*first, to_out.T @ hidden, to_sums.sum(0), to_last_w, to_last_b)


def _parts(x_BSD: Tensor) -> list[slice]:
    """Return runs of sequences of about ROWS rows."""
    step = max(1, ROWS // x_BSD.shape[1])
    return [slice(start, start + step) for start in range(0, len(x_BSD), step)]


def _chunks(num_rows: int) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, num_rows, ROWS)]
