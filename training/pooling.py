"""The encoder's output columns, for CPUs: the max pool and the newest actions' tokens.

Letters: R requests, S actions, M candidates of a request, D token width, K newest.
"""

from typing import Any

import torch
from torch import Tensor

from training.fused_layers import Gradients


class MaxAndNewest(torch.autograd.Function):
    """The max pool over the front positions, then some tokens; its gradient is nearly empty.

    Requests side by side that pool as many positions are pooled together: sort them by that.
    """

    @staticmethod
    def forward(ctx: Any, tokens_RMSD: Tensor, num_pooled_R: Tensor, index_RK: Tensor) -> Tensor:
        """Return float [R, M, 1 + K, D]; at least one position of each request is pooled."""
        num_requests, num_candidates, _, width = ctx.shape = tokens_RMSD.shape
        lengths, counts = torch.unique_consecutive(num_pooled_R, return_counts=True)
        runs = tokens_RMSD.split(counts.tolist())
        found = [
            run[:, :, :length].max(dim=2, keepdim=True)
            for run, length in zip(runs, lengths.tolist(), strict=True)
        ]
        pooled, place = (torch.cat(parts) for parts in zip(*found, strict=True))
        newest = index_RK[:, None, :, None].expand(num_requests, num_candidates, -1, width)
        ctx.save_for_backward(torch.cat([place, newest], dim=2))
        return torch.cat([pooled, tokens_RMSD.gather(2, newest)], dim=2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        """Return the gradient of the tokens."""
        (place,) = ctx.saved_tensors
        to_tokens = gradients[0].new_zeros(ctx.shape)
        return to_tokens.scatter_add_(2, place, gradients[0]), None, None
