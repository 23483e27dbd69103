"""The encoder's output columns, for CPUs: the max pool and the newest actions' tokens.

Letters: R requests, S actions, M candidates of a request, D token width, K newest.
"""

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
    lengths, counts = torch.unique_consecutive(num_pooled_R, return_counts=True)
    runs = tokens_RMSD.split(counts.tolist())
    found = [
        run[:, :, :length].max(dim=2, keepdim=True)
        for run, length in zip(runs, lengths.tolist(), strict=True)
    ]
    pooled, place = (torch.cat(parts) for parts in zip(*found, strict=True))
    newest = index_RK[:, None, :, None].expand(num_requests, num_candidates, -1, width)
    columns = torch.cat([pooled, tokens_RMSD.gather(2, newest)], dim=2)
    return columns, torch.cat([place, newest], dim=2)


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
