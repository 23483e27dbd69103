"""The first layer's attention, for the candidates of a request together, on CPUs.

Not for where its factors come from: that is `training.model.encoder.cpu.factors`. Tested in
tests/training/model/encoder/cpu/test_door.py and test_layer_stack.py.

Letters: R requests, S tokens, M candidates (of a request, or those multiplied together), N rows,
D token width, d sequence channels (action type and pin), E pin embedding.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.model.encoder.cpu.blocks import (
    CANDIDATES_PER_PRODUCT,
    SavedActivations,
    SequenceBlock,
    SparseGradient,
    cast,
    empty_rows,
    in_requests,
)
from training.model.encoder.cpu.factors import Factors
from training.model.encoder.cpu.matrix_products import linear

MOST_TOKENS = 128
"""Products of up to this many tokens go through oneDNN. It builds three kernels for every number of
tokens, and keeps the last thousand kernels."""


class SharedAttention:
    """The first layer up to its first norm: tokens + attention, its exponentials in two factors.

    For token i of candidate m, with the exponential's factors E_ij and w_mj and the values v_j:
    out_mi = token_mi + sum_j E_ij w_mj v_j / sum_j E_ij w_mj + own_value_m,
    token_mi = [sequence_i, candidate_m]
    """

    def __init__(self, factors: Factors, dtype: torch.dtype | None) -> None:
        """Take the factors; the products with E are computed in `dtype`, None for theirs."""
        self._factors, self._dtype = factors, dtype
        self._by_query = cast(factors.by_query_RSS, dtype)
        self._num_shared = factors.sequence_RSd.shape[2]
        self._by_candidate_RSM = factors.by_candidate_RMS.transpose(1, 2).contiguous()
        self._total_RSM = factors.by_query_RSS @ self._by_candidate_RSM
        # what a candidate adds to the sums of every token
        self._base_RMD = factors.own_value_RMD.clone()
        self._base_RMD[:, :, self._num_shared :] += factors.candidates_RME

    def forward(self, x_ND: Tensor | None, block: SequenceBlock) -> tuple[Tensor, Tensor]:
        """Return the sums, float [N, D], twice: once as output and once to be saved.

        Args:
            x_ND: None, as there is no layer before.
            block: the sequences.
        """
        assert x_ND is None
        out = empty_rows(block.shape.num_rows, self._base_RMD)
        some, tokens = block.requests, slice(block.shape.num_positions)
        by_query = self._by_query[some, tokens, tokens].unbind()
        for together, out_RMSD in _multiplied_together(out, block):
            total_RMS1 = self._total_RSM[some, tokens, together].transpose(1, 2)[..., None]
            base_RM1D = self._base_RMD[some, together, None]
            weighted = self._weighted(block, together).unbind()
            for r, (left_SS, right_SMD) in enumerate(zip(by_query, weighted, strict=True)):
                mixed_MSD = _multiplied(left_SS, right_SMD).transpose(0, 1)
                torch.addcdiv(base_RM1D[r], mixed_MSD, total_RMS1[r], out=out_RMSD[r])
            out_RMSD[..., : self._num_shared] += self._factors.sequence_RSd[some, None, tokens]
        return out, out

    def start_backward(self) -> None:
        """Set the gradients to zero."""
        self._gradients = Factors(*(torch.zeros_like(factor) for factor in self._factors))
        self._to_total_RSM = torch.zeros_like(self._total_RSM)

    def backward(
        self, gradient: SparseGradient, saved: SavedActivations, block: SequenceBlock
    ) -> None:
        """Add to the factors' gradients; there is no layer before that would want one."""
        grad_ND = gradient.rows_ND
        if gradient.selection.row_N is not None:
            grad_ND = torch.zeros_like(saved.attended_ND)
            gradient.add_to(grad_ND)
        grads = _multiplied_together(grad_ND, block)
        outs = _multiplied_together(saved.attended_ND, block)
        for (together, grad_RMSD), (_, out_RMSD) in zip(grads, outs, strict=True):
            self._add_to_tokens_and_totals(block, together, grad_RMSD, out_RMSD)
            self._add_to_factors(block, together, grad_RMSD)

    def finish_backward(self) -> Factors:
        """Return the factors' gradients, once all blocks have gone back."""
        gradients = self._gradients
        gradients.by_query_RSS.baddbmm_(self._to_total_RSM, self._factors.by_candidate_RMS)
        gradients.by_candidate_RMS.baddbmm_(
            self._to_total_RSM.transpose(1, 2), self._factors.by_query_RSS
        )
        to_candidates_RME = gradients.own_value_RMD[:, :, self._num_shared :]
        return gradients._replace(candidates_RME=to_candidates_RME)

    def _weighted(self, block: SequenceBlock, together: slice) -> Tensor:
        """Return w v, [R, S, M, D]."""
        some, tokens = block.requests, slice(block.shape.num_positions)
        weights_RSM1 = self._by_candidate_RSM[some, tokens, together, None]
        return cast(weights_RSM1 * self._factors.value_RSD[some, tokens, None], self._dtype)

    def _add_to_tokens_and_totals(
        self, block: SequenceBlock, together: slice, grad_RMSD: Tensor, out_RMSD: Tensor
    ) -> None:
        """Add to the gradients of the tokens, and set those of the sums over E w."""
        some, tokens = block.requests, slice(block.shape.num_positions)
        shared = slice(self._num_shared)
        torch.sum(grad_RMSD, 2, out=self._gradients.own_value_RMD[some, together])
        self._gradients.sequence_RSd[some, tokens] += grad_RMSD[..., shared].sum(1)
        # The quotient of the two sums is the output without the token and own_value.
        mixed_RMSD = out_RMSD - self._base_RMD[some, together, None]
        mixed_RMSD[..., shared] -= self._factors.sequence_RSd[some, None, tokens]
        to_log_total_RSM = mixed_RMSD.mul_(grad_RMSD).sum(3).transpose(1, 2)
        to_total_RSM = to_log_total_RSM / self._total_RSM[some, tokens, together]
        self._to_total_RSM[some, tokens, together] = -to_total_RSM

    def _add_to_factors(self, block: SequenceBlock, together: slice, grad_RMSD: Tensor) -> None:
        """Add to the gradients of E, w and v by way of the sums over E w v."""
        some, tokens = block.requests, slice(block.shape.num_positions)
        weights_RSM1 = self._by_candidate_RSM[some, tokens, together, None]
        total_RSM1 = self._total_RSM[some, tokens, together, None]
        weighted_RSMD = self._weighted(block, together)
        to_mixed_RSMD = torch.empty_like(weighted_RSMD)
        torch.div(grad_RMSD.transpose(1, 2), total_RSM1, out=to_mixed_RSMD)
        gradients = self._gradients
        of_requests = _Products(
            to_query_SS=gradients.by_query_RSS[some, tokens, tokens],
            to_candidate_MS=gradients.by_candidate_RMS[some, together, tokens],
            to_value_SD=gradients.value_RSD[some, tokens],
            by_query_SS=self._by_query[some, tokens, tokens],
            value_S1D=self._factors.value_RSD[some, tokens, None],
            weights_SM1=weights_RSM1,
            weighted_SMD=weighted_RSMD,
            to_mixed_SMD=to_mixed_RSMD,
        )
        for of_request in zip(*(tensor.unbind() for tensor in of_requests), strict=True):
            _Products(*of_request).add_gradients()


class _Products(NamedTuple):
    """A request's products E (w v): gradients to add to, factors, and the gradient of the sums."""

    to_query_SS: Tensor
    to_candidate_MS: Tensor
    to_value_SD: Tensor
    by_query_SS: Tensor  # E
    value_S1D: Tensor  # v
    weights_SM1: Tensor  # w
    weighted_SMD: Tensor  # w v
    to_mixed_SMD: Tensor

    def add_gradients(self) -> None:
        """Add to the first three tensors in place."""
        product = _product(self.weighted_SMD)
        to_mixed, weighted = self.to_mixed_SMD.flatten(1), self.weighted_SMD.flatten(1)
        self.to_query_SS.add_(product(to_mixed, weighted))
        to_weighted_SMD = _multiplied(self.by_query_SS.T, self.to_mixed_SMD)
        self.to_candidate_MS.copy_((to_weighted_SMD * self.value_S1D).sum(2).T)
        self.to_value_SD.add_(to_weighted_SMD.mul_(self.weights_SM1).sum(1))


def _multiplied_together(rows_ND: Tensor, block: SequenceBlock) -> Iterator[tuple[slice, Tensor]]:
    """Yield some candidates, and their rows in all requests of the block, [R, M, S, D]."""
    rows_RMSD = in_requests(rows_ND, block)
    start, stop = block.candidates.start, block.candidates.stop
    for first in range(start, stop, CANDIDATES_PER_PRODUCT):
        together = slice(first, min(first + CANDIDATES_PER_PRODUCT, stop))
        yield together, rows_RMSD[:, first - start : together.stop - start]


def _multiplied(left_SS: Tensor, right_SMD: Tensor) -> Tensor:
    """Return left right, [S, M, D]."""
    return _product(right_SMD)(left_SS, right_SMD.flatten(1).T).view(right_SMD.shape)


def _product(rows_SMD: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return oneDNN's product where few shapes occur, and PyTorch's own otherwise.

    Few shapes occur with CANDIDATES_PER_PRODUCT candidates and at most MOST_TOKENS tokens.
    """
    num_tokens, num_candidates, _ = rows_SMD.shape
    is_recurring = num_candidates == CANDIDATES_PER_PRODUCT and num_tokens <= MOST_TOKENS
    return linear if is_recurring else F.linear
