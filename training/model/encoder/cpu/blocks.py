"""Blocks of sequences that fit a CPU's caches, and the rows that the layers hand each other.

The tokens of a block are the rows of one matrix. It is filled up to a number of rows that occurs
often (`training.model.encoder.cpu.matrix_products` says why). Filling rows hold finite numbers and
have a gradient of zero, so they add nothing to the gradient of any parameter.

Letters: R requests, S tokens, M candidates of a request, B sequences (pairs of a request and a
candidate), N rows (B S and filling), A selected positions of a sequence, D token width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.model.encoder.cpu.matrix_products import padded

BLOCK_ROWS = 4096
"""Rows of a block. At D = 96 these are 1.6 MB of float32. With fewer rows, starting an operation
costs more than the caches save."""
CANDIDATES_PER_PRODUCT = 8
"""Candidates of a request whose values are multiplied by the request's exponentials together."""


class BlockShape(NamedTuple):
    """How many sequences stand together, and how many positions each of them has."""

    num_sequences: int  # B
    num_positions: int  # S, or A where positions are selected

    @property
    def num_rows(self) -> int:
        """Positions of all sequences, which is the number of rows without filling."""
        return self.num_sequences * self.num_positions


class SequenceBlock(NamedTuple):
    """Sequences that go through the layers together: whole requests, or candidates of one."""

    requests: slice
    candidates: slice
    shape: BlockShape  # B and S
    log_count_B1S: Tensor | None  # float, as of `TokenRoles`; None: every token is one action


class RowSelection(NamedTuple):
    """Some positions of a block, the same number of them in each sequence."""

    shape: BlockShape  # B and A
    row_N: Tensor | None  # int64, their rows, any row where filling; None: all rows, in their order

    def take(self, rows_ND: Tensor) -> Tensor:
        """Return the selected rows of all rows."""
        return rows_ND if self.row_N is None else rows_ND.index_select(0, self.row_N)


class SparseGradient(NamedTuple):
    """The gradient of the selected positions; that of all others is zero."""

    rows_ND: Tensor  # zero where filling
    selection: RowSelection

    def add_to(self, total_ND: Tensor) -> None:
        """Add this to the gradient of all rows."""
        if self.selection.row_N is None:
            total_ND += self.rows_ND
        else:
            total_ND.index_add_(0, self.selection.row_N, self.rows_ND)


class SavedActivations(NamedTuple):
    """What a layer saves of the forward pass for its backward pass."""

    input_ND: Tensor | None  # None for the first layer, which reads `Factors`
    attended_ND: Tensor  # a later layer: the mean of x by attention; the first layer: its sums
    sums_ND: Tensor  # the layer's input plus its attention branch, before the first norm
    last_mean_N1: Tensor  # of the last norm
    last_scale_N1: Tensor

    def take(self, selection: RowSelection) -> "SavedActivations":
        """Return what the backward pass needs if only selected rows of the output have a gradient.

        The layer's input stays whole, as every position is a key. So does what the first layer's
        attention saves, because its backward pass runs over all positions.
        """
        attended = self.attended_ND
        return SavedActivations(
            input_ND=self.input_ND,
            attended_ND=attended if self.input_ND is None else selection.take(attended),
            sums_ND=selection.take(self.sums_ND),
            last_mean_N1=selection.take(self.last_mean_N1),
            last_scale_N1=selection.take(self.last_scale_N1),
        )


def make_blocks(
    num_candidates: int, num_tokens: Sequence[int], log_count_RS: Tensor | None
) -> list[SequenceBlock]:
    """Return blocks of about BLOCK_ROWS rows that hold every sequence once.

    A block is as long as its longest request, so requests should come sorted from long to short.

    Args:
        num_candidates: M.
        num_tokens: of each request, how many tokens, from the front, are computed.
        log_count_RS: as of `TokenRoles`.
    """
    blocks = []
    start = 0
    while start < len(num_tokens):
        num_each = max(1, BLOCK_ROWS // num_tokens[start])
        stop = min(start + max(1, num_each // num_candidates), len(num_tokens))
        requests, longest = slice(start, stop), max(num_tokens[start:stop])
        if num_each < num_candidates:
            # candidates of a single request, in numbers that are multiplied together
            products = max(num_each // CANDIDATES_PER_PRODUCT, 1)
            num_each = products * CANDIDATES_PER_PRODUCT
        log_count = None if log_count_RS is None else log_count_RS[requests, :longest]
        for candidates in _slices(num_candidates, min(num_each, num_candidates)):
            blocks.append(_block(requests, candidates, longest, log_count))
        start = stop
    return blocks


def _block(
    requests: slice, candidates: slice, num_tokens: int, log_count_RS: Tensor | None
) -> SequenceBlock:
    count = candidates.stop - candidates.start
    log_count_B1S = None
    if log_count_RS is not None and bool((log_count_RS != 0).any()):
        log_count_B1S = log_count_RS.repeat_interleave(count, dim=0)[:, None]
    shape = BlockShape((requests.stop - requests.start) * count, num_tokens)
    return SequenceBlock(requests, candidates, shape, log_count_B1S)


def _slices(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def empty_rows(num_rows: int, like: Tensor) -> Tensor:
    """Return a matrix of rows that are not set, followed by filling rows of zeros, [N, D]."""
    rows = like.new_empty(padded(num_rows), like.shape[-1])
    rows[num_rows:] = 0.0
    return rows


def in_sequences(rows_ND: Tensor, shape: BlockShape) -> Tensor:
    """Return the rows without filling, [B, S, D]."""
    return rows_ND[: shape.num_rows].view(*shape, rows_ND.shape[1])


def in_requests(rows_ND: Tensor, block: SequenceBlock) -> Tensor:
    """Return the rows without filling, [R, M, S, D]."""
    num_candidates = block.candidates.stop - block.candidates.start
    return in_sequences(rows_ND, block.shape).unflatten(0, (-1, num_candidates))


def cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the tensor in another precision, or itself where dtype is None."""
    return tensor if dtype is None else tensor.to(dtype)
