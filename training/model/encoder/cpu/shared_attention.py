"""The first layer's attention for the candidates of a request together, for CPUs.

Not for where its factors come from: that is `training.model.encoder.layer`.

Letters: R requests, S actions, M candidates (of a request, or of a block), N rows, D token width,
d sequence channels, E pin embedding.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.model.encoder.cpu.matrix_products import linear
from training.model.encoder.cpu.parts import (
    BLOCK_CANDIDATES,
    Gradient,
    Kept,
    Part,
    cast,
    empty_rows,
    in_requests,
)

MOST_ACTIONS = 128
"""oneDNN builds three kernels for every number of actions up to this, and keeps a thousand."""


class Factors(NamedTuple):
    """What the candidates of a request mix, and the tokens that the mix is added to."""

    by_query_RSS: Tensor  # E
    by_candidate_RMS: Tensor  # w
    value_RSD: Tensor  # v
    own_value_RMD: Tensor
    sequence_RSd: Tensor
    candidates_RME: Tensor


class SharedAttention:
    """The first layer up to its first norm: tokens + attention, its exponentials in two factors.

    out_mi = token_mi + sum_j E_ij w_mj v_j / sum_j E_ij w_mj + own_value_m,
    token_mi = [sequence_i, candidate_m]
    """

    def __init__(self, factors: Factors, dtype: torch.dtype | None) -> None:
        """Take what is mixed; the products with E are made in `dtype`."""
        self._factors, self._dtype = factors, dtype
        self._by_query = cast(factors.by_query_RSS, dtype)
        self._num_shared = factors.sequence_RSd.shape[2]
        self._by_candidate_RSM = factors.by_candidate_RMS.transpose(1, 2).contiguous()
        self._total_RSM = factors.by_query_RSS @ self._by_candidate_RSM
        # what a candidate adds at every action
        self._base_RMD = factors.own_value_RMD.clone()
        self._base_RMD[:, :, self._num_shared :] += factors.candidates_RME

    def forward(self, tokens: Tensor | None, part: Part) -> tuple[Tensor, Tensor]:
        """Return the sums, float [N, D], twice, as they are kept for this; nothing enters."""
        out = empty_rows(part.shape[0] * part.shape[1], self._base_RMD)
        some, actions = part.requests, slice(part.shape[1])
        by_query = self._by_query[some, actions, actions].unbind()
        for block, out_RMSD in _blocks(out, part):
            total_RMS1 = self._total_RSM[some, actions, block].transpose(1, 2)[..., None]
            base_RM1D = self._base_RMD[some, block, None]
            weighted = self._weighted(part, block).unbind()
            for r, (left_SS, right_SMD) in enumerate(zip(by_query, weighted, strict=True)):
                mixed_MSD = _multiplied(left_SS, right_SMD).transpose(0, 1)
                torch.addcdiv(base_RM1D[r], mixed_MSD, total_RMS1[r], out=out_RMSD[r])
            out_RMSD[..., : self._num_shared] += self._factors.sequence_RSd[some, None, actions]
        return out, out

    def start_backward(self) -> None:
        """Make room for gradients."""
        self._gradients = Factors(*(torch.zeros_like(factor) for factor in self._factors))
        self._to_total_RSM = torch.zeros_like(self._total_RSM)

    def backward(self, gradient: Gradient, kept: Kept, part: Part) -> None:
        """Add to the factors' gradients; there is no input that has one."""
        grad_ND = gradient.rows_ND
        if gradient.at.place_N is not None:
            grad_ND = torch.zeros_like(kept.attended_ND)
            gradient.add_to(grad_ND)
        blocks = zip(_blocks(grad_ND, part), _blocks(kept.attended_ND, part), strict=True)
        for (block, grad_RMSD), (_, out_RMSD) in blocks:
            self._to_sums(part, block, grad_RMSD, out_RMSD)
            self._to_mixed(part, block, grad_RMSD)

    def finish_backward(self) -> Factors:
        """Return the factors' gradients, once all parts have gone back."""
        gradients = self._gradients
        gradients.by_query_RSS.baddbmm_(self._to_total_RSM, self._factors.by_candidate_RMS)
        gradients.by_candidate_RMS.baddbmm_(
            self._to_total_RSM.transpose(1, 2), self._factors.by_query_RSS
        )
        to_candidates_RME = gradients.own_value_RMD[:, :, self._num_shared :]
        return gradients._replace(candidates_RME=to_candidates_RME)

    def _weighted(self, part: Part, block: slice) -> Tensor:
        some, actions = part.requests, slice(part.shape[1])
        weights_RSM1 = self._by_candidate_RSM[some, actions, block, None]
        return cast(weights_RSM1 * self._factors.value_RSD[some, actions, None], self._dtype)

    def _to_sums(self, part: Part, block: slice, grad_RMSD: Tensor, out_RMSD: Tensor) -> None:
        """Add to the gradients of the tokens and of the totals."""
        some, actions, shared = part.requests, slice(part.shape[1]), slice(self._num_shared)
        torch.sum(grad_RMSD, 2, out=self._gradients.own_value_RMD[some, block])
        self._gradients.sequence_RSd[some, actions] += grad_RMSD[..., shared].sum(1)
        # mixed / total is what was put out less the tokens
        mixed_RMSD = out_RMSD - self._base_RMD[some, block, None]
        mixed_RMSD[..., shared] -= self._factors.sequence_RSd[some, None, actions]
        to_log_total_RSM = mixed_RMSD.mul_(grad_RMSD).sum(3).transpose(1, 2)
        to_total_RSM = to_log_total_RSM / self._total_RSM[some, actions, block]
        self._to_total_RSM[some, actions, block] = -to_total_RSM

    def _to_mixed(self, part: Part, block: slice, grad_RMSD: Tensor) -> None:
        """Add to the gradients of what is mixed."""
        some, actions = part.requests, slice(part.shape[1])
        weights_RSM1 = self._by_candidate_RSM[some, actions, block, None]
        total_RSM1 = self._total_RSM[some, actions, block, None]
        weighted_RSMD = self._weighted(part, block)
        to_mixed_RSMD = torch.empty_like(weighted_RSMD)
        torch.div(grad_RMSD.transpose(1, 2), total_RSM1, out=to_mixed_RSMD)
        gradients = self._gradients
        of_requests = (
            gradients.by_query_RSS[some, actions, actions],
            gradients.by_candidate_RMS[some, block, actions],
            gradients.value_RSD[some, actions],
            self._by_query[some, actions, actions],
            self._factors.value_RSD[some, actions, None],
            weights_RSM1,
            weighted_RSMD,
            to_mixed_RSMD,
        )
        for of_request in zip(*(part.unbind() for part in of_requests), strict=True):
            _to_factors(*of_request)


def _to_factors(
    to_query_SS: Tensor,
    to_candidate_MS: Tensor,
    to_value_SD: Tensor,
    by_query_SS: Tensor,
    value_S1D: Tensor,
    weights_SM1: Tensor,
    weighted_SMD: Tensor,
    to_mixed_SMD: Tensor,
) -> None:
    """Add to a request's first three tensors, by the gradient of what its candidates mix."""
    product = _product(weighted_SMD)
    to_query_SS += product(to_mixed_SMD.flatten(1), weighted_SMD.flatten(1))
    to_weighted_SMD = _multiplied(by_query_SS.T, to_mixed_SMD)
    to_candidate_MS.copy_((to_weighted_SMD * value_S1D).sum(2).T)
    to_value_SD += to_weighted_SMD.mul_(weights_SM1).sum(1)


def _blocks(rows_ND: Tensor, part: Part) -> Iterator[tuple[slice, Tensor]]:
    """Yield some candidates, and their rows of all requests of the part [R, M, S, D]."""
    rows_RMSD = in_requests(rows_ND, part)
    start, stop = part.candidates.start, part.candidates.stop
    for first in range(start, stop, BLOCK_CANDIDATES):
        block = slice(first, min(first + BLOCK_CANDIDATES, stop))
        yield block, rows_RMSD[:, first - start : block.stop - start]


def _multiplied(left_SS: Tensor, right_SMD: Tensor) -> Tensor:
    """Return left right, [S, M, D]."""
    return _product(right_SMD)(left_SS, right_SMD.flatten(1).T).view(right_SMD.shape)


def _product(rows_SMD: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return oneDNN's product where few shapes occur: whole blocks of not too many actions."""
    num_actions, num_candidates, _ = rows_SMD.shape
    is_recurring = num_candidates == BLOCK_CANDIDATES and num_actions <= MOST_ACTIONS
    return linear if is_recurring else F.linear
