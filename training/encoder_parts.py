"""What the encoder's layers hand each other, a cache's worth at a time, for CPUs.

Rows are filled up to a number that recurs (`training.products`). What stands in the filling is
finite and its gradient is zero: it adds nothing to the gradient of any parameter.

Letters: R requests, S actions, M candidates of a request, B sequences, N rows (B S and filling), A
positions of a sequence that have a gradient, D token width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from training.products import padded

PART_ROWS = 4096
"""Rows of a part: 1.6 MB of float32 at D = 96; with fewer, starting operations costs more."""
BLOCK_CANDIDATES = 8
"""Candidates of a request that share a product with its exponentials."""


class Part(NamedTuple):
    """Sequences that go through the layers together: whole requests, or candidates of one."""

    requests: slice
    candidates: slice
    shape: tuple[int, int]  # B and S
    hidden_B1S: Tensor | None  # bool, True where an action must not be looked at


class Kept(NamedTuple):
    """What a layer's backward pass needs of the forward pass."""

    entered_ND: Tensor | None  # None for the first layer
    mixed_ND: Tensor | None  # what attention mixed; None for the first layer
    sums_ND: Tensor  # between attention and the first norm
    last_mean_N1: Tensor
    last_scale_N1: Tensor


class Gradient(NamedTuple):
    """The gradient of some positions, as many in each sequence; all others have none."""

    rows_ND: Tensor  # zero where filling
    shape: tuple[int, int]  # B and A
    place_N: Tensor | None  # which rows these are, any where filling; None: all, in their order

    def take(self, whole: Tensor) -> Tensor:
        """Return the rows that this is the gradient of."""
        return whole if self.place_N is None else whole.index_select(0, self.place_N)

    def add_to(self, total_ND: Tensor) -> None:
        """Add this to the gradient of all rows."""
        if self.place_N is None:
            total_ND += self.rows_ND
        else:
            total_ND.index_add_(0, self.place_N, self.rows_ND)


def make_parts(shape: tuple[int, int, int], is_key_RS: Tensor | None) -> list[Part]:
    """Return parts of about PART_ROWS rows that hold every sequence once.

    Args:
        shape: R, M and S.
        is_key_RS: bool, at least one per request; None: all.
    """
    num_requests, num_candidates, num_tokens = shape
    num_each = max(1, PART_ROWS // num_tokens)
    if num_each < num_candidates:  # of one request, and whole blocks of its candidates
        num_each = max(num_each // BLOCK_CANDIDATES, 1) * BLOCK_CANDIDATES
        requests = [slice(r, r + 1) for r in range(num_requests)]
    else:
        requests = _slices(num_requests, num_each // num_candidates)
        num_each = num_candidates
    parts = []
    for some in requests:
        for candidates in _slices(num_candidates, num_each):
            count = candidates.stop - candidates.start
            hidden_B1S = None
            if is_key_RS is not None and not bool(is_key_RS[some].all()):
                hidden_B1S = ~is_key_RS[some].repeat_interleave(count, dim=0)[:, None]
            num_sequences = (some.stop - some.start) * count
            parts.append(Part(some, candidates, (num_sequences, num_tokens), hidden_B1S))
    return parts


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
