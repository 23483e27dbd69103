"""The encoder's output: the max pool over the last layer's tokens, then the newest actions' tokens.

Each of these vectors is a column. Not for the layers that make the tokens:
those are `training.model.encoder.layer` and `training.model.encoder.cpu`.

Letters: R requests, S tokens, M candidates of a request, D token width, K newest actions.
"""

import itertools
from typing import Any

import torch
from torch import Tensor

from training.model.encoder.tokens import up_to


def output_columns(tokens_RMSD: Tensor, num_pooled_R: Tensor, newest_RK: Tensor) -> Tensor:
    """Return the columns, float [R, M, 1 + K, D], on any device and also in compiled code.

    Args:
        tokens_RMSD: float [R, M, S, D].
        num_pooled_R: int64 [R], how many tokens, from the front, the max pool is taken over; at
            least one.
        newest_RK: int64 [R, K], which tokens are the newest actions.
    """
    # compiled code cannot look at the lengths, and a GPU should not wait for them
    may_look = not torch.compiler.is_compiling() and not tokens_RMSD.is_cuda
    if may_look and len(tokens_RMSD):
        return OutputColumns.apply(tokens_RMSD, num_pooled_R, newest_RK)
    is_pooled_RS = up_to(num_pooled_R, tokens_RMSD.shape[2])
    pooled = tokens_RMSD.masked_fill(~is_pooled_RS[:, None, :, None], float("-inf"))
    index = newest_RK[:, None, :, None].expand(-1, tokens_RMSD.shape[1], -1, tokens_RMSD.shape[3])
    return torch.cat([pooled.amax(dim=2, keepdim=True), tokens_RMSD.gather(2, index)], dim=2)


def columns_and_sources(
    tokens_RMSD: Tensor, num_pooled_R: Tensor, newest_RK: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the columns, and int64 of the same shape: which token each number was taken from.

    Neighbouring requests whose pools are over as many tokens are pooled in one operation, so
    requests should come sorted by `num_pooled_R`. Arguments as of `output_columns`.
    """
    num_requests, num_candidates, _, width = tokens_RMSD.shape
    columns = tokens_RMSD.new_empty(num_requests, num_candidates, 1 + newest_RK.shape[1], width)
    source = newest_RK.new_empty(columns.shape)
    source[:, :, 1:] = newest_RK[:, None, :, None]
    start = 0
    for length, run in itertools.groupby(num_pooled_R.tolist()):
        some = slice(start, start + len(list(run)))
        pooled = tokens_RMSD[some, :, :length].max(dim=2)
        columns[some, :, 0], source[some, :, 0] = pooled.values, pooled.indices
        start = some.stop
    columns[:, :, 1:] = tokens_RMSD.gather(2, source[:, :, 1:])
    return columns, source


class OutputColumns(torch.autograd.Function):
    """The columns, with a backward pass that writes the few gradients that are not zero."""

    @staticmethod
    def forward(ctx: Any, tokens_RMSD: Tensor, num_pooled_R: Tensor, newest_RK: Tensor) -> Tensor:
        """Return float [R, M, 1 + K, D]."""
        columns, source = columns_and_sources(tokens_RMSD, num_pooled_R, newest_RK)
        ctx.save_for_backward(source)
        ctx.shape = tokens_RMSD.shape
        return columns

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the tokens."""
        (source,) = ctx.saved_tensors
        to_tokens = gradients[0].new_zeros(ctx.shape)
        return to_tokens.scatter_add_(2, source, gradients[0]), None, None
