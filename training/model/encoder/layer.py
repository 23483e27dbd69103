"""One transformer layer of the sequence encoder, for the candidates of a request side by side.

Same parameters and same outputs as a post-norm `nn.TransformerEncoderLayer` (dropout apart), with
less work: what the candidates of a request have in common is done once. CPUs have a way of their
own, `training.model.encoder.cpu.layer_stack`, which takes its parameters from here. Not for which
actions stand together: that is `training.model.encoder.plan`.

Letters: R requests, S actions, M candidates of a request, D token width, d sequence channels
(action and its pin), E pin embedding, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.contracts.config import ModelConfig
from training.model.encoder.cpu.shared_attention import Factors

MAX_EXPONENT_RANGE = 60.0
"""Largest spread of a candidate's scores for which exp(score) may be split into two factors. The
smallest sum is then exp(-60), far above float32's smallest number: nothing of weight is lost."""


class TransformerLayer(nn.Module):
    """A post-norm transformer layer (attention, feed-forward), as in the paper's public code.

    Dropout acts on the two residual branches. It does not act on the attention weights: that would
    force the unfused kernel, which writes every [S, S] matrix out.
    """

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.width = width
        self.num_heads = config.num_attention_heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward_in = nn.Linear(width, config.feedforward_dim)
        self.feedforward_out = nn.Linear(config.feedforward_dim, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens_RMSD: Tensor, mask_RS: Tensor | None) -> Tensor:
        """Return the next layer's tokens, float [R, M, S, D].

        Args:
            tokens_RMSD: float [R, M, S, D].
            mask_RS: [R, S], bool, True where an action may be looked at, at least one per request;
                or float, what is added to its scores, -inf hides; None: all are looked at alike.
                Rows of hidden actions are computed like all others.
        """
        query, key, value = self.query_key_value(tokens_RMSD).chunk(3, dim=-1)
        mixed = self.attention_out(self._attend(query, key, value, mask_RS))
        return self._finish(tokens_RMSD + self.dropout(mixed))

    def first(self, sequence_RSd: Tensor, candidates_RME: Tensor, mask_RS: Tensor | None) -> Tensor:
        """Return the first layer's output, float [R, M, S, D], for tokens [sequence, candidate].

        W token = W_seq [action, pin] + W_cand candidate, and the larger part is the same for all
        candidates of a request. A key needs no candidate part (nor a bias): it adds the same number
        to all scores of a query, and the softmax does not see that. A value's candidate part is
        the same for all actions, so it passes through the softmax unchanged.

        Args:
            sequence_RSd: float [R, S, d].
            candidates_RME: float [R, M, E], with d + E = D.
            mask_RS: as in `forward`.
        """
        num_shared = sequence_RSd.shape[2]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        query, key, value = F.linear(sequence_RSd, weight[:, :num_shared])[:, None].chunk(3, dim=-1)
        own = F.linear(candidates_RME, weight[:, num_shared:], bias)[:, :, None]
        own_query, _, own_value = own.chunk(3, dim=-1)
        shape = (-1, candidates_RME.shape[1], sequence_RSd.shape[1], -1)
        mixed = self._attend(query + own_query, key.expand(shape), value.expand(shape), mask_RS)
        mixed = self.attention_out(mixed + own_value)
        parts = [sequence_RSd[:, None].expand(shape), candidates_RME[:, :, None].expand(shape)]
        return self._finish(torch.cat(parts, dim=-1) + self.dropout(mixed))

    def _attend(
        self, query_RMSD: Tensor, key_RMSD: Tensor, value_RMSD: Tensor, mask_RS: Tensor | None
    ) -> Tensor:
        """Return each query's mix of values, [R, M, S, D]; each candidate looks at its own keys."""
        heads = (self.num_heads, -1)
        query, key, value = (
            part.flatten(0, 1).unflatten(-1, heads).transpose(1, 2)
            for part in (query_RMSD, key_RMSD, value_RMSD)
        )
        mask = None
        if mask_RS is not None:
            mask = mask_RS.repeat_interleave(query_RMSD.shape[1], dim=0)[:, None, None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2).unflatten(0, query_RMSD.shape[:2])

    def _finish(self, sums: Tensor) -> Tensor:
        attended = self.attention_norm(sums)
        hidden = self.feedforward_out(F.relu(self.feedforward_in(attended)))
        return self.feedforward_norm(attended + self.dropout(hidden))

    def may_be_fused(self, tokens: Tensor) -> bool:
        """Return whether `training.model.encoder.cpu.layer_stack` does what is asked for here."""
        has_dropout = self.training and self.dropout.p > 0
        is_plain = self.num_heads == 1 and not has_dropout
        return is_plain and not tokens.is_cuda and not torch.compiler.is_compiling()

    def fused_parameters(self, *, is_first: bool) -> list[Tensor]:
        """Return what `training.model.encoder.cpu.layer_stack` takes of this layer."""
        modules = (
            self.attention_norm,
            self.feedforward_in,
            self.feedforward_out,
            self.feedforward_norm,
        )
        finish = [p for module in modules for p in (module.weight, module.bias)]
        return finish if is_first else [*self._folded(), *finish]

    def _folded(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return weight and bias of scaled queries (for plain keys) and of values (as put out).

        With a single head two pairs of matrices meet with nothing between them. A score is
        (Wq x + bq) . (Wk y + bk) = (Wk' Wq x + Wk' bq) . y + what is the same for all y and falls
        out of the softmax; Wo sum_y p_y (Wv y + bv) + bo = sum_y p_y (Wo Wv y + Wo bv + bo).
        """
        query_w, key_w, value_w = self.query_key_value.weight.chunk(3)
        query_b, _, value_b = self.query_key_value.bias.chunk(3)
        out_w, out_b = self.attention_out.weight, self.attention_out.bias
        scaled_key_w = key_w * self.width**-0.5
        return (
            scaled_key_w.T @ query_w,
            query_b @ scaled_key_w,
            out_w @ value_w,
            out_w @ value_b + out_b,
        )

    def factors(
        self, sequence_RSd: Tensor, candidates_RME: Tensor, mask_RS: Tensor | None
    ) -> Factors | None:
        """Return what `SharedAttention` mixes, or None where exponents lie too far apart.

        A query is a shared part plus the candidate's own, so exp(score) is a product: one factor of
        query and key for all candidates, one of candidate and key for all queries. The softmax's
        exponentials and its [S, S] matrix are thus made once per request, not per candidate. The
        mask is float.
        """
        num_shared = sequence_RSd.shape[2]
        query_w, query_b, value_w, value_b = self._folded()
        query_RSd = F.linear(sequence_RSd, query_w[:num_shared, :num_shared])
        own_query_RMd = F.linear(
            candidates_RME, query_w[:num_shared, num_shared:], query_b[:num_shared]
        )
        shared_RSS = query_RSd @ sequence_RSd.transpose(1, 2)
        own_RMS = own_query_RMd @ sequence_RSd.transpose(1, 2)
        if mask_RS is not None:
            shared_RSS = shared_RSS.masked_fill(mask_RS[:, None].isneginf(), float("-inf"))
            own_RMS = own_RMS + mask_RS[:, None]
        highest_RM1 = own_RMS.detach().amax(2, keepdim=True)
        lowest = own_RMS.detach().masked_fill(own_RMS.isinf(), float("inf"))
        if len(own_RMS) and (highest_RM1 - lowest).max() > MAX_EXPONENT_RANGE:
            return None
        # Any number may be taken off the exponents: it falls out of the quotient.
        by_query = (shared_RSS - shared_RSS.detach().amax(2, keepdim=True)).exp()
        by_candidate = (own_RMS - highest_RM1).exp()
        value_RSD = F.linear(sequence_RSd, value_w[:, :num_shared])
        own_value_RMD = F.linear(candidates_RME, value_w[:, num_shared:], value_b)
        return Factors(
            by_query, by_candidate, value_RSD, own_value_RMD, sequence_RSd, candidates_RME
        )
