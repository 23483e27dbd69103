"""The encoder's layers by PyTorch's own operations, for the candidates of a request side by side.

It has the parameters of a post-norm `nn.TransformerEncoderLayer` and, dropout apart, its outputs.
What the candidates of a request have in common is computed once. The layers run on every device,
with dropout, with several attention heads and in compiled code; the faster way for CPUs,
`training.model.encoder.cpu`, gives the same numbers up to rounding. Tested in
tests/training/model/encoder/test_sequence_encoder.py and cpu/test_door.py.

Letters: R requests, S tokens, M candidates of a request, D token width, d sequence channels
(action type and pin), E pin embedding, K newest actions.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.contracts.config import ModelConfig
from training.model.encoder.output_columns import output_columns
from training.model.encoder.tokens import TokenRoles


class TransformerLayer(nn.Module):
    """A post-norm transformer layer (attention, feed-forward), as in the paper's public code.

    Dropout acts on the two residual branches. It does not act on the attention weights, because
    that would force the unfused attention kernel, which writes every [S, S] matrix out.
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

    def forward(self, tokens_RMSD: Tensor, log_count_RS: Tensor | None) -> Tensor:
        """Return the next layer's tokens, float [R, M, S, D]; hidden tokens are computed too.

        Args:
            tokens_RMSD: float [R, M, S, D].
            log_count_RS: float [R, S], as of `TokenRoles`.
        """
        query, key, value = self.query_key_value(tokens_RMSD).chunk(3, dim=-1)
        mixed = self.attention_out(self._attend(query, key, value, log_count_RS))
        return self._finish(tokens_RMSD + self.dropout(mixed))

    def first(
        self, sequence_RSd: Tensor, candidates_RME: Tensor, log_count_RS: Tensor | None
    ) -> Tensor:
        """Return the first layer's output, float [R, M, S, D], for tokens [sequence, candidate].

        W token = W_seq [action, pin] + W_cand candidate, and the first, larger summand is the same
        for all candidates of a request. A key needs neither its candidate part nor its bias: they
        add the same number to all scores of a query, and the softmax cancels it. A value's
        candidate part is the same for all actions, so the softmax's weighted mean leaves it as it
        is, and it is added after the attention.

        Args:
            sequence_RSd: float [R, S, d].
            candidates_RME: float [R, M, E], with d + E = D.
            log_count_RS: float [R, S], as of `TokenRoles`.
        """
        num_shared = sequence_RSd.shape[2]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        query, key, value = F.linear(sequence_RSd, weight[:, :num_shared])[:, None].chunk(3, dim=-1)
        own = F.linear(candidates_RME, weight[:, num_shared:], bias)[:, :, None]
        own_query, _, own_value = own.chunk(3, dim=-1)
        shape = (-1, candidates_RME.shape[1], sequence_RSd.shape[1], -1)
        mixed = self._attend(
            query + own_query, key.expand(shape), value.expand(shape), log_count_RS
        )
        mixed = self.attention_out(mixed + own_value)
        parts = [sequence_RSd[:, None].expand(shape), candidates_RME[:, :, None].expand(shape)]
        return self._finish(torch.cat(parts, dim=-1) + self.dropout(mixed))

    def _attend(
        self, query_RMSD: Tensor, key_RMSD: Tensor, value_RMSD: Tensor, log_count_RS: Tensor | None
    ) -> Tensor:
        """Return each query's weighted mean of its own candidate's values, [R, M, S, D]."""
        heads = (self.num_heads, -1)
        query, key, value = (
            part.flatten(0, 1).unflatten(-1, heads).transpose(1, 2)
            for part in (query_RMSD, key_RMSD, value_RMSD)
        )
        mask = None
        if log_count_RS is not None:
            mask = log_count_RS.repeat_interleave(query_RMSD.shape[1], dim=0)[:, None, None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2).unflatten(0, query_RMSD.shape[:2])

    def _finish(self, sums: Tensor) -> Tensor:
        """Return the layer's output from its input plus the attention branch."""
        attended = self.attention_norm(sums)
        hidden = self.feedforward_out(F.relu(self.feedforward_in(attended)))
        return self.feedforward_norm(attended + self.dropout(hidden))


def encode(
    layers: Sequence[TransformerLayer],
    sequence_RSd: Tensor,
    candidates_RME: Tensor,
    roles: TokenRoles,
) -> Tensor:
    """Return the output columns of each candidate, float [R, M, 1 + K, D].

    Args:
        layers: at least one.
        sequence_RSd: float [R, S, d].
        candidates_RME: float [R, M, E], with d + E = D.
        roles: what each token is used for.
    """
    first, *later = layers
    tokens_RMSD = first.first(sequence_RSd, candidates_RME, roles.log_count_RS)
    for layer in later:
        tokens_RMSD = layer(tokens_RMSD, roles.log_count_RS)
    return output_columns(tokens_RMSD, roles.num_pooled_R, roles.newest_RK)
