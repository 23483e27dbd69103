"""The encoder's layers for the candidates of a request side by side, on every device.

A layer has the parameters of a post-norm `nn.TransformerEncoderLayer` and, dropout apart, its
outputs. What the candidates of a request have in common is computed once, and with one attention
head four matrices become two. Tested in tests/training/model/encoder/test_sequence_encoder.py.

Letters: R requests, S tokens, M candidates of a request, B sequences (pairs of a request and a
candidate), H heads, D token width, d sequence channels (action type and pin), E pin embedding,
e channels of a head, K newest actions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.contracts.config import ModelConfig
from training.model.encoder.matrix_products import linear
from training.model.encoder.tokens import TokenRoles, up_to


class Matrices(NamedTuple):
    """What attention multiplies by, in the weights' precision."""

    query_w_DD: Tensor
    query_b_D: Tensor
    key_value_w: Tensor | None  # [2 D, D]; None: a token is its own key and value
    out_w_DD: Tensor
    folded_w_DD: Tensor  # from a token to what it adds to another that attends to it alone
    folded_b_D: Tensor


class TransformerLayer(nn.Module):
    """A post-norm transformer layer (attention, feed-forward), as in the paper's public code.

    Dropout acts on the two residual branches. In the public code it also acts on the attention
    weights and the hidden feed-forward channels, for which it draws as many numbers again.
    """

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.width = width
        self.num_heads = config.num_attention_heads
        self.dropout = config.dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward_in = nn.Linear(width, config.feedforward_dim)
        self.feedforward_out = nn.Linear(config.feedforward_dim, width)
        self.feedforward_norm = nn.LayerNorm(width)

    def forward(
        self,
        matrices: Matrices,
        tokens_RMSD: Tensor,
        log_count_RS: Tensor | None,
        num_keys: int | None = None,
    ) -> Tensor:
        """Return the next layer's tokens, float [R, M, S, D]; hidden tokens are computed too.

        Args:
            matrices: of this layer.
            tokens_RMSD: float [R, M, S, D].
            log_count_RS: float [R, keys], as of `TokenRoles`.
            num_keys: how many tokens, from the front, the others look at; all if not given.
        """
        tokens_BSD = tokens_RMSD.flatten(0, 1)
        query_BHSe = self._by_head(linear(tokens_BSD, matrices.query_w_DD, matrices.query_b_D))
        key_BHSe, value_BHSe = self._keys_and_values(
            tokens_BSD[:, :num_keys].to(query_BHSe.dtype), matrices.key_value_w
        )
        added = log_count_RS
        if added is not None:
            added = added.repeat_interleave(tokens_RMSD.shape[1], dim=0)[:, None, None]
            added = added.to(query_BHSe.dtype)
        attend = F.scaled_dot_product_attention  # a GPU's flash or memory-efficient kernel
        mixed_BHSe = attend(query_BHSe, key_BHSe, value_BHSe, added, scale=1.0)
        mixed_RMSD = mixed_BHSe.transpose(1, 2).reshape(tokens_RMSD.shape)
        out_w_DD, folded_b_D = matrices.out_w_DD, matrices.folded_b_D
        return self._finish(self._plus(tokens_RMSD, mixed_RMSD, out_w_DD, folded_b_D))

    def first(
        self,
        matrices: Matrices,
        sequence_RSd: Tensor,
        candidates_RME: Tensor,
        log_count_RS: Tensor | None,
    ) -> Tensor:
        """Return the first layer's output, float [R, M, S, D], for tokens [sequence, candidate].

        W token = W_seq [action, pin] + W_cand candidate, and the first, larger summand is the same
        for all candidates of a request. So a score is a number of the query's and the key's action,
        the same for all candidates, plus a number of the candidate and the key's action. A key
        needs neither its candidate part nor its bias: they add the same number to all scores of a
        query, and the softmax cancels it. A value's candidate part is the same for all actions, so
        the softmax's weighted mean leaves it as it is, and it is added after the attention.

        Args:
            matrices: of this layer.
            sequence_RSd: float [R, S, d].
            candidates_RME: float [R, M, E], with d + E = D.
            log_count_RS: float [R, S], as of `TokenRoles`.
        """
        num_shared, num_own = sequence_RSd.shape[2], candidates_RME.shape[2]
        query_w, query_b, key_value_w, out_w, folded_w, folded_b = matrices
        if key_value_w is not None:
            key_value_w = key_value_w[:, :num_shared]
        key_RHSe, value_RHSe = self._keys_and_values(sequence_RSd, key_value_w)
        num_channels = self.num_heads * key_RHSe.shape[3]  # d where a token is its own key, or D
        query_w, query_b = query_w[:num_channels], query_b[:num_channels]
        query_RHSe = self._by_head(F.linear(sequence_RSd, query_w[:, :num_shared]))
        own_query_RHMe = self._by_head(F.linear(candidates_RME, query_w[:, num_shared:], query_b))
        shared_RHSS, own_RHMS = query_RHSe @ key_RHSe.mT, own_query_RHMe @ key_RHSe.mT
        if log_count_RS is not None:
            own_RHMS = own_RHMS + log_count_RS[:, None, None].to(own_RHMS.dtype)
        weights_RHMSS = torch.softmax(shared_RHSS[:, :, None] + own_RHMS[:, :, :, None], dim=-1)
        mixed = (weights_RHMSS.flatten(2, 3) @ value_RHSe).transpose(1, 2).flatten(2)
        mixed_RMSe = mixed.unflatten(1, (candidates_RME.shape[1], sequence_RSd.shape[1]))
        own_RM1D = F.linear(candidates_RME, folded_w[:, num_shared:], folded_b)[:, :, None]
        tokens_RMSD = (
            F.pad(sequence_RSd, (0, num_own))[:, None]
            + (F.pad(candidates_RME, (num_shared, 0))[:, :, None])
        )
        return self._finish(self._plus(tokens_RMSD, mixed_RMSe, out_w[:, :num_channels], own_RM1D))

    def matrices(self) -> Matrices:
        """Return the matrices of attention, which all groups of a batch share.

        The softmax's weights p_x sum to 1, so a value's bias may be added after the attention:
        Wo sum_x p_x (Wv x + bv) + bo = Wo sum_x p_x Wv x + Wo bv + bo.
        With one head, the key matrix is multiplied into the query matrix and the value matrix into
        the output projection, which saves two products per token. A score is
        (Wq y + bq) . (Wk x + bk) = (Wk' Wq y + Wk' bq) . x + a number that is the same for all x,
        which the softmax cancels.
        """
        with torch.autocast(self.attention_out.weight.device.type, enabled=False):
            query_w, key_w, value_w = self.query_key_value.weight.chunk(3)
            query_b, _, value_b = self.query_key_value.bias.chunk(3)
            out_w = self.attention_out.weight
            scale = (self.width // self.num_heads) ** -0.5
            query_w, query_b = scale * query_w, scale * query_b
            folded_w = out_w @ value_w
            folded_b = out_w @ value_b + self.attention_out.bias
            if self.num_heads == 1:
                query_w, query_b = key_w.T @ query_w, query_b @ key_w
                return Matrices(query_w, query_b, None, folded_w, folded_w, folded_b)
            key_value_w = torch.cat([key_w, value_w])
            return Matrices(query_w, query_b, key_value_w, out_w, folded_w, folded_b)

    def _keys_and_values(self, tokens: Tensor, key_value_w: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the keys and the values of tokens [B, S, D or d], each [B, H, S, e]."""
        if key_value_w is None:
            return tokens[:, None], tokens[:, None]
        key, value = linear(tokens, key_value_w).chunk(2, dim=-1)
        return self._by_head(key), self._by_head(value)

    def _by_head(self, rows: Tensor) -> Tensor:
        """Return rows [B, S, H e] as [B, H, S, e]."""
        return rows.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def _finish(self, sums: Tensor) -> Tensor:
        """Return the layer's output from its input plus the attention branch."""
        attended = self.attention_norm(sums)
        hidden = linear(attended, self.feedforward_in.weight, self.feedforward_in.bias)
        out_w, out_b = self.feedforward_out.weight, self.feedforward_out.bias
        return self.feedforward_norm(self._plus(attended, F.relu(hidden), out_w, out_b))

    def _plus(self, total: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return total + dropout(x W' + b), in the precision of `total`.

        Args:
            total: float [R, M, S, D].
            x: float [R, M, S, F].
            weight: float [D, F].
            bias: float [D], or [R, M, 1, D].
        """
        if not self.training or self.dropout == 0.0:
            return linear(x, weight, plus=total + bias)
        branch = linear(x, weight) + bias
        kept, share = kept_by_dropout(branch, self.dropout)
        return torch.addcmul(total, branch.to(total.dtype), kept.to(total.dtype), value=1 / share)


def kept_by_dropout(like: Tensor, dropout: float) -> tuple[Tensor, float]:
    """Return 0 where dropout acts and 1 elsewhere, float of that shape, and the share of ones.

    Every element is drawn by 16 bits of torch's generator. So the share is 1 - dropout up to
    1 / 65,536, and drawing takes a fifth of the time that `torch.nn.Dropout` takes on a CPU.
    `random_` draws all 64 bits only where it is told the lowest number.
    """
    num_dropped = int(dropout * 2**16)  # of the 2 ** 16 values, the smallest
    bits = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device)
    numbers = bits.random_(-(2**63), None).view(torch.int16)[: like.numel()].view(like.shape)
    return numbers.float().ge_(num_dropped - 2**15), 1 - num_dropped / 2**16


def encode(
    layers: Sequence[tuple[TransformerLayer, Matrices]],
    sequence_RSd: Tensor,
    candidates_RME: Tensor,
    roles: TokenRoles,
    is_appended: bool = False,
) -> Tensor:
    """Return the output columns of each candidate, float [R, M, 1 + K, D].

    A column is a vector: first the max pool over the last layer's tokens, then the newest actions'
    tokens. Where candidates are appended, their own tokens stand in place of the pool.

    Args:
        layers: at least one, each with its matrices.
        sequence_RSd: float [R, S, d].
        candidates_RME: float [R, M, E], with d + E = D.
        roles: what each token is used for.
        is_appended: candidates are tokens behind the actions, which do not look at them. So actions
            are encoded once for all candidates, and d = D.
    """
    num_tokens, num_candidates = sequence_RSd.shape[1], candidates_RME.shape[1]
    (first, matrices), *later = layers
    if is_appended:
        own_RMd = F.pad(candidates_RME, (first.width - candidates_RME.shape[2], 0))
        tokens_RMSD, later = torch.cat([sequence_RSd, own_RMd], dim=1)[:, None], [*layers]
    else:
        tokens_RMSD = first.first(matrices, sequence_RSd, candidates_RME, roles.log_count_RS)
    for layer, matrices in later:
        tokens_RMSD = layer(matrices, tokens_RMSD, roles.log_count_RS, num_tokens)
    actions_RMSD = tokens_RMSD[:, :, :num_tokens]
    pooled = actions_RMSD.detach()
    if roles.log_count_RS is not None:
        is_pooled_RS = up_to(roles.num_pooled_R, num_tokens)
        pooled = pooled.masked_fill(~is_pooled_RS[:, None, :, None], float("-inf"))
    # One gather for all columns: its backward pass writes the few gradients that are not zero.
    pool = pooled.max(dim=2, keepdim=True).indices
    newest = roles.newest_RK[:, None, :, None].expand(-1, pool.shape[1], -1, pool.shape[3])
    columns_RMKD = actions_RMSD.gather(2, torch.cat([pool, newest], dim=2))
    if not is_appended:
        return columns_RMKD
    newest = columns_RMKD[:, :, 1:].expand(-1, num_candidates, -1, -1)
    return torch.cat([tokens_RMSD[:, 0, num_tokens:, None], newest], dim=2)
