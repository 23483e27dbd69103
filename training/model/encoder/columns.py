"""The encoder's output columns, for CPUs: the max pool and the newest actions' tokens.

Letters: R requests, S actions, M candidates of a request, D token width, K newest.
"""

import itertools
from typing import Any

import torch
from torch import Tensor


def max_and_newest(
    tokens_RMSD: Tensor, num_pooled_R: Tensor, index_RK: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the columns, float [R, M, 1 + K, D], and which action each number is from, int64.

    Requests side by side that pool as many positions are pooled together: sort them by that.

    Args:
        tokens_RMSD: float [R, M, S, D].
        num_pooled_R: int64 [R], the positions from the front that are pooled, at least one.
        index_RK: int64 [R, K], where the newest actions stand.
    """
    num_requests, num_candidates, _, width = tokens_RMSD.shape
    columns = tokens_RMSD.new_empty(num_requests, num_candidates, 1 + index_RK.shape[1], width)
    place = index_RK.new_empty(columns.shape)
    place[:, :, 1:] = index_RK[:, None, :, None]
    start = 0
    for length, run in itertools.groupby(num_pooled_R.tolist()):
        some = slice(start, start + len(list(run)))
        pooled = tokens_RMSD[some, :, :length].max(dim=2)
        columns[some, :, 0], place[some, :, 0] = pooled.values, pooled.indices
        start = some.stop
    columns[:, :, 1:] = tokens_RMSD.gather(2, place[:, :, 1:])
    return columns, place


class MaxAndNewest(torch.autograd.Function):
    """The columns of tokens that plain layers made; their gradient is nearly empty."""

    @staticmethod
    def forward(ctx: Any, tokens_RMSD: Tensor, num_pooled_R: Tensor, index_RK: Tensor) -> Tensor:
        """Return float [R, M, 1 + K, D]."""
        columns, place = max_and_newest(tokens_RMSD, num_pooled_R, index_RK)
        ctx.save_for_backward(place)
        ctx.shape = tokens_RMSD.shape
        return columns

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the tokens."""
        (place,) = ctx.saved_tensors
        to_tokens = gradients[0].new_zeros(ctx.shape)
        return to_tokens.scatter_add_(2, place, gradients[0]), None, None
