"""The first layer's attention for the candidates of a request together, for CPUs.

Not for where its factors come from: that is `training.encoder_layers`.

Letters: R requests, S actions, M candidates of a request, D token width, d sequence channels, E pin
embedding.
"""

from typing import Any

import torch
from torch import Tensor

from training.fused_layers import Gradients, cast


class SharedAttention(torch.autograd.Function):
    """The first layer up to its first norm: tokens + attention, its exponentials in two factors.

    out_mi = token_mi + sum_j E_ij w_mj v_j / sum_j E_ij w_mj + own_value_m,
    token_mi = [sequence_i, candidate_m]
    """

    @staticmethod
    def forward(
        ctx: Any,
        by_query_RSS: Tensor,  # E
        by_candidate_RMS: Tensor,  # w
        value_RSD: Tensor,  # v
        own_value_RMD: Tensor,
        sequence_RSd: Tensor,
        candidates_RME: Tensor,
        dtype: torch.dtype | None,
    ) -> Tensor:
        """Return float [R, M, S, D]."""
        ctx.save_for_backward(by_query_RSS, by_candidate_RMS, value_RSD)
        ctx.dtype, ctx.num_shared = dtype, sequence_RSd.shape[2]
        total_RMS = by_candidate_RMS @ by_query_RSS.transpose(1, 2)
        out = value_RSD.new_empty(*by_candidate_RMS.shape, value_RSD.shape[2])
        factors = (cast(part, dtype) for part in (by_query_RSS, by_candidate_RMS, value_RSD))
        for r, (query_SS, weights_MS, value_SD) in enumerate(zip(*factors, strict=True)):
            out_MSD = out[r]
            weighted_MSD = weights_MS[:, :, None] * value_SD
            mixed_MSD = query_SS.expand(len(out_MSD), -1, -1) @ weighted_MSD
            torch.div(mixed_MSD, total_RMS[r][:, :, None], out=out_MSD)
            out_MSD += own_value_RMD[r][:, None]
            out_MSD[:, :, : ctx.num_shared] += sequence_RSd[r]
            out_MSD[:, :, ctx.num_shared :] += candidates_RME[r][:, None]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        """Return the gradients of the six tensors."""
        by_query_RSS, by_candidate_RMS, value_RSD = ctx.saved_tensors
        grad_RMSD = gradients[0]
        total_RMS = by_candidate_RMS @ by_query_RSS.transpose(1, 2)
        to_query, to_value = torch.empty_like(by_query_RSS), torch.empty_like(value_RSD)
        to_candidate, to_total = torch.empty_like(by_candidate_RMS), torch.empty_like(total_RMS)
        for r, grad_MSD in enumerate(grad_RMSD):
            query_SS = cast(by_query_RSS[r], ctx.dtype)
            weights_MS1, value_SD = by_candidate_RMS[r][:, :, None], value_RSD[r]
            weighted_MSD = cast(weights_MS1, ctx.dtype) * cast(value_SD, ctx.dtype)
            scaled_MSD = cast(grad_MSD / total_RMS[r][:, :, None], ctx.dtype)
            to_weighted = query_SS.T.expand(len(grad_MSD), -1, -1) @ scaled_MSD
            to_query_MSS = scaled_MSD @ weighted_MSD.transpose(1, 2)
            to_query[r] = to_query_MSS.sum(0, dtype=to_query.dtype)
            # sum over d of scaled * mixed, mixed being E weighted / total
            to_total[r] = -(to_query_MSS * by_query_RSS[r]).sum(2) / total_RMS[r]
            to_candidate[r] = (to_weighted * value_SD).sum(2)
            to_value[r] = (to_weighted * weights_MS1).sum(0)
        to_query += to_total.transpose(1, 2) @ by_candidate_RMS
        to_candidate += to_total @ by_query_RSS
        to_own_value = grad_RMSD.sum(2)
        to_sequence = grad_RMSD[..., : ctx.num_shared].sum(1)
        to_candidates = to_own_value[..., ctx.num_shared :]
        return to_query, to_candidate, to_value, to_own_value, to_sequence, to_candidates, None
