"""What the encoder's layers hand each other, a cache's worth at a time, for CPUs.

Rows are filled up to a number that recurs (`training.model.encoder.cpu.matrix_products`). What
stands in the filling is finite and its gradient is zero: it adds nothing to the gradient of any
parameter.

Letters: R requests, S actions, M candidates of a request, B sequences, N rows (B S and filling), A
positions of a sequence that have a gradient, D token width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.model.encoder.cpu.matrix_products import padded

PART_ROWS = 4096
"""Rows of a part: 1.6 MB of float32 at D = 96; with fewer, starting operations costs more."""
BLOCK_CANDIDATES = 8
"""Candidates of a request that share a product with its exponentials."""


class Part(NamedTuple):
    """Sequences that go through the layers together: whole requests, or candidates of one."""

    requests: slice
    candidates: slice
    shape: tuple[int, int]  # B and S
    mask_B1S: Tensor | None  # float, what is added to an action's scores


class Positions(NamedTuple):
    """Some positions of a part, as many in each sequence."""

    shape: tuple[int, int]  # B and A
    place_N: Tensor | None  # which rows these are, any where filling; None: all, in their order

    def take(self, whole: Tensor) -> Tensor:
        """Return their rows."""
        return whole if self.place_N is None else whole.index_select(0, self.place_N)


class Gradient(NamedTuple):
    """The gradient of some positions; all others have none."""

    rows_ND: Tensor  # zero where filling
    at: Positions

    def add_to(self, total_ND: Tensor) -> None:
        """Add this to the gradient of all rows."""
        if self.at.place_N is None:
            total_ND += self.rows_ND
        else:
            total_ND.index_add_(0, self.at.place_N, self.rows_ND)


class Kept(NamedTuple):
    """What a layer's backward pass needs of the forward pass."""

    entered_ND: Tensor | None  # None for the first layer
    attended_ND: Tensor  # what attention keeps: a later layer's mix, the first layer's sums
    sums_ND: Tensor  # between attention and the first norm
    last_mean_N1: Tensor
    last_scale_N1: Tensor

    def take(self, positions: Positions) -> "Kept":
        """Return what is needed where no other position of the output will have a gradient.

        All positions enter and are looked at, and the first layer's attention goes back through
        all.
        """
        entered, attended, *of_feed_forward = self
        if entered is not None:
            attended = positions.take(attended)
        return Kept(entered, attended, *(positions.take(rows) for rows in of_feed_forward))


def make_parts(
    num_candidates: int, num_tokens: Sequence[int], mask_RS: Tensor | None
) -> list[Part]:
    """Return parts of about PART_ROWS rows that hold every sequence once.

    A part is as long as its longest request: give them from long to short.

    Args:
        num_candidates: M.
        num_tokens: of each request, the actions from the front that are computed.
        mask_RS: float, what is added to an action's scores, -inf where it must not be looked at, at
            least one of each request may; None: nothing.
    """
    parts = []
    start = 0
    while start < len(num_tokens):
        num_each = max(1, PART_ROWS // num_tokens[start])
        stop = min(start + max(1, num_each // num_candidates), len(num_tokens))
        requests, longest = slice(start, stop), max(num_tokens[start:stop])
        if num_each < num_candidates:  # of one request, and whole blocks of its candidates
            num_each = max(num_each // BLOCK_CANDIDATES, 1) * BLOCK_CANDIDATES
        mask = None if mask_RS is None else mask_RS[requests, :longest]
        for candidates in _slices(num_candidates, min(num_each, num_candidates)):
            parts.append(_part(requests, candidates, longest, mask))
        start = stop
    return parts


def _part(requests: slice, candidates: slice, num_tokens: int, mask_RS: Tensor | None) -> Part:
    count = candidates.stop - candidates.start
    mask_B1S = None
    if mask_RS is not None and bool((mask_RS != 0).any()):
        mask_B1S = mask_RS.repeat_interleave(count, dim=0)[:, None]
    shape = (requests.stop - requests.start) * count, num_tokens
    return Part(requests, candidates, shape, mask_B1S)


def _slices(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def empty_rows(num_rows: int, like: Tensor) -> Tensor:
    """Return room for rows, [N, D]; the filling is zero, the rest is not set."""
    rows = like.new_empty(padded(num_rows), like.shape[-1])
    rows[num_rows:] = 0.0
    return rows


def in_sequences(rows_ND: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the rows without the filling, [B, S, D]."""
    return rows_ND[: shape[0] * shape[1]].view(*shape, rows_ND.shape[1])


def in_requests(rows_ND: Tensor, part: Part) -> Tensor:
    """Return the rows without the filling, [R, M, S, D]."""
    num_candidates = part.candidates.stop - part.candidates.start
    return in_sequences(rows_ND, part.shape).unflatten(0, (-1, num_candidates))


def cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the tensor in another precision, or itself for None."""
    return tensor if dtype is None else tensor.to(dtype)
