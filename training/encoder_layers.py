"""One transformer layer of the sequence encoder, for the candidates of a request side by side.

Same parameters and same outputs as a post-norm `nn.TransformerEncoderLayer` (dropout apart), with
less work: what the candidates of a request have in common is done once. Not for which actions and
candidates stand together: that is `training.encoder_plan`.

Letters: R requests, S actions, M candidates of a request, D token width, d sequence channels
(action and its pin), E pin embedding, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.contracts.config import ModelConfig

MAX_EXPONENT_RANGE = 60.0
"""Largest spread of a candidate's scores for which exp(score) may be split into two factors. The
smallest sum is then exp(-60), far above float32's smallest number: nothing of weight is lost."""


class TransformerLayer(nn.Module):
    """A post-norm transformer layer (attention, feed-forward), as in the paper's public code.

    Dropout acts on the two residual branches. It does not act on the attention weights: that would
    force the unfused kernel, which writes every [S, S] matrix out.

    With a single head two pairs of matrices meet with nothing between them and are multiplied
    beforehand. A score is (Wq x + bq) . (Wk y + bk) = (Wk' Wq x + Wk' bq) . y + what is the same
    for all y and falls out of the softmax; Wo sum_y p_y (Wv y + bv) = sum_y p_y (Wo Wv y + Wo bv).
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

    def forward(self, tokens_RSMD: Tensor, is_key_RS: Tensor | None) -> Tensor:
        """Return the next layer's tokens, float [R, S, M, D].

        Args:
            tokens_RSMD: float [R, S, M, D].
            is_key_RS: bool [R, S], True where an action may be looked at, at least one per request;
                None if all are. Rows of positions that are no key are computed like all others.
        """
        if self.num_heads == 1:
            query, value = F.linear(tokens_RSMD, *self._folded()).chunk(2, dim=-1)
            mixed = self._attend(query, tokens_RSMD, value, is_key_RS)
        else:
            query, key, value = self.query_key_value(tokens_RSMD).chunk(3, dim=-1)
            mixed = self.attention_out(self._attend(query, key, value, is_key_RS))
        return self._finish(tokens_RSMD, mixed)

    def first(
        self, sequence_RSd: Tensor, candidates_RME: Tensor, is_key_RS: Tensor | None
    ) -> Tensor:
        """Return the first layer's output, float [R, S, M, D], for tokens [sequence, candidate].

        W token = W_seq [action, pin] + W_cand candidate, and the larger part is the same for all
        candidates of a request. A key needs no candidate part (nor a bias): it adds the same number
        to all scores of a query, and the softmax does not see that. A value's candidate part is
        the same for all actions, so it passes through the softmax unchanged.

        Args:
            sequence_RSd: float [R, S, d].
            candidates_RME: float [R, M, E], with d + E = D.
            is_key_RS: as in `forward`.
        """
        num_shared = sequence_RSd.shape[2]
        query_w, key_w, value_w, query_b, value_b = self._first_weights()
        query_RSD = F.linear(sequence_RSd, query_w[:, :num_shared])
        key_RSD = F.linear(sequence_RSd, key_w[:, :num_shared])
        value_RSD = F.linear(sequence_RSd, value_w[:, :num_shared])
        own_query_RMD = F.linear(candidates_RME, query_w[:, num_shared:], query_b)
        own_value_RMD = F.linear(candidates_RME, value_w[:, num_shared:], value_b)
        mixed = self._attend_shared(query_RSD, key_RSD, value_RSD, own_query_RMD, is_key_RS)
        mixed = mixed + own_value_RMD[:, None]
        if self.num_heads > 1:
            mixed = self.attention_out(mixed)
        shape = (-1, sequence_RSd.shape[1], candidates_RME.shape[1], -1)
        parts = [sequence_RSd[:, :, None].expand(shape), candidates_RME[:, None].expand(shape)]
        return self._finish(torch.cat(parts, dim=-1), mixed)

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Return weight [2 D, D] and bias [2 D] of one head's query (for plain keys) and value."""
        query_w, key_w, value_w = self.query_key_value.weight.chunk(3)
        query_b, _, value_b = self.query_key_value.bias.chunk(3)
        out_w, out_b = self.attention_out.weight, self.attention_out.bias
        weight = torch.cat([key_w.T @ query_w, out_w @ value_w])
        return weight, torch.cat([query_b @ key_w, out_w @ value_b + out_b])

    def _first_weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the projections of the first layer; with one head, values are already put out."""
        query_w, key_w, value_w = self.query_key_value.weight.chunk(3)
        query_b, _, value_b = self.query_key_value.bias.chunk(3)
        if self.num_heads == 1:
            out_w, out_b = self.attention_out.weight, self.attention_out.bias
            value_w, value_b = out_w @ value_w, out_w @ value_b + out_b
        return query_w, key_w, value_w, query_b, value_b

    def _attend(
        self, query_RSMD: Tensor, key_RSMD: Tensor, value_RSMD: Tensor, is_key_RS: Tensor | None
    ) -> Tensor:
        """Return each query's mix of values, [R, S, M, D]; each candidate looks at its own keys."""
        mask = None if is_key_RS is None else is_key_RS[:, None, None]
        query, key, value = (self._split(part) for part in (query_RSMD, key_RSMD, value_RSMD))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).unflatten(2, (-1, self.num_heads)).flatten(3)

    def _split(self, part_RSMD: Tensor) -> Tensor:
        """Return [R, M H, S, D / H], a view: candidates and heads alike attend on their own."""
        heads = part_RSMD.unflatten(-1, (self.num_heads, -1))
        return heads.flatten(2, 3).transpose(1, 2)

    def _attend_shared(
        self,
        query_RSD: Tensor,
        key_RSD: Tensor,
        value_RSD: Tensor,
        own_query_RMD: Tensor,
        is_key_RS: Tensor | None,
    ) -> Tensor:
        """Return the first layer's mix of shared values, [R, S, M, D].

        A query is a shared part plus the candidate's own, so exp(score) is a product: one factor of
        query and key for all candidates, one of candidate and key for all queries. The softmax's
        exponentials and its [S, S] matrix are thus made once per request, not per candidate.
        """
        heads = (self.num_heads, -1)
        query, key, value = (
            part.unflatten(-1, heads).transpose(1, 2) for part in (query_RSD, key_RSD, value_RSD)
        )
        own_query = own_query_RMD.unflatten(-1, heads).transpose(1, 2)  # [R, H, M, D / H]
        key = key * query.shape[-1] ** -0.5
        own_RHSM = key @ own_query.transpose(2, 3)
        if not _may_be_split(own_RHSM, is_key_RS):
            return self._attend_unsplit(query_RSD, key_RSD, value_RSD, own_query_RMD, is_key_RS)
        shared_RHSS = query @ key.transpose(2, 3)
        if is_key_RS is not None:
            is_hidden = ~is_key_RS[:, None, :, None]
            shared_RHSS = shared_RHSS.masked_fill(is_hidden.transpose(2, 3), float("-inf"))
            own_RHSM = own_RHSM.masked_fill(is_hidden, float("-inf"))
        # Any number may be taken off the exponents: it falls out of the quotient.
        by_query = (shared_RHSS - shared_RHSS.amax(3, keepdim=True).detach()).exp()
        by_candidate = (own_RHSM - own_RHSM.amax(2, keepdim=True).detach()).exp()
        weighted = by_candidate[..., None] * value[:, :, :, None]  # [R, H, S, M, D / H]
        total = by_query @ by_candidate  # [R, H, S, M]
        mixed = (by_query @ weighted.flatten(3)).unflatten(3, weighted.shape[3:])
        mixed = mixed / total[..., None]
        return mixed.permute(0, 2, 3, 1, 4).flatten(3)

    def _attend_unsplit(
        self,
        query_RSD: Tensor,
        key_RSD: Tensor,
        value_RSD: Tensor,
        own_query_RMD: Tensor,
        is_key_RS: Tensor | None,
    ) -> Tensor:
        """Return the same as `_attend_shared`, the queries written out for every candidate."""
        query_RSMD = query_RSD[:, :, None] + own_query_RMD[:, None]
        shape = query_RSMD.shape
        key_RSMD, value_RSMD = (part[:, :, None].expand(shape) for part in (key_RSD, value_RSD))
        return self._attend(query_RSMD, key_RSMD, value_RSMD, is_key_RS)

    def _finish(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        attended = self.attention_norm(tokens + self.dropout(mixed))
        hidden = self.feedforward_out(F.relu(self.feedforward_in(attended)))
        return self.feedforward_norm(attended + self.dropout(hidden))


def _may_be_split(own_RHSM: Tensor, is_key_RS: Tensor | None) -> bool:
    """Return whether exp(own score) keeps within float32's range over each candidate's keys.

    Compiled code takes the other way, because it cannot look at numbers; so does a GPU, where the
    fused kernel writes no matrix out and looking would mean waiting.
    """
    if torch.compiler.is_compiling() or own_RHSM.is_cuda:
        return False
    scores = own_RHSM.detach()
    if is_key_RS is None:
        spread = scores.amax(2) - scores.amin(2)
    else:
        is_hidden = ~is_key_RS[:, None, :, None]
        highest = scores.masked_fill(is_hidden, float("-inf")).amax(2)
        spread = highest - scores.masked_fill(is_hidden, float("inf")).amin(2)
    return scores.numel() == 0 or bool(spread.max() <= MAX_EXPONENT_RANGE)
