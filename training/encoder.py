"""The TransAct sequence encoder: what a user did lately, seen from each candidate pin.

Own layers over `scaled_dot_product_attention`, because `nn.TransformerEncoder` takes another path
in evaluation and fills padded positions differently there (pytorch#86120, #128209). Not for
features that need no learning: those are `training.sequence_matches`.

Letters: R requests, C candidates of all requests, S actions per request (newest first, padded),
E pin embedding, A action embedding, D = A + 2 E token width, K first_k.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.contracts.config import ModelConfig
from pipelines.contracts.errors import ConfigurationError

PADDING_ID = 0
"""The action type id that pads; real action types count from 1."""


class TransformerLayer(nn.Module):
    """A post-norm transformer layer (attention, feed-forward), as in the paper's public code.

    Dropout acts on the two residual branches. It does not act on the attention weights: that would
    force the unfused kernel, which writes every [S, S] matrix out.
    """

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward_in = nn.Linear(width, config.feedforward_dim)
        self.feedforward_out = nn.Linear(config.feedforward_dim, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens_CSD: Tensor, is_key_C1S: Tensor) -> Tensor:
        """Return the next layer's tokens.

        Args:
            tokens_CSD: float [C, S, D].
            is_key_C1S: bool [C, 1, S], True where an action may be looked at; at least one per row.

        Returns:
            float [C, S, D]; rows of positions that are no key hold finite but meaningless numbers.
        """
        query, key, value = self.query_key_value(tokens_CSD).chunk(3, dim=-1)
        return self.combine(tokens_CSD, query, key, value, is_key_C1S)

    def combine(
        self, tokens_CSD: Tensor, query: Tensor, key: Tensor, value: Tensor, is_key_C1S: Tensor
    ) -> Tensor:
        """Return the layer's output from its input and the projections, each [C, S, D]."""
        mixed = F.scaled_dot_product_attention(
            self._split_heads(query),
            self._split_heads(key),
            self._split_heads(value),
            attn_mask=is_key_C1S[:, None],  # [C, 1, 1, S]
        )
        mixed_CSD = mixed.transpose(1, 2).flatten(2)
        attended = tokens_CSD + self.dropout(self.attention_out(mixed_CSD))
        attended = self.attention_norm(attended)
        hidden = self.feedforward_out(F.relu(self.feedforward_in(attended)))
        return self.feedforward_norm(attended + self.dropout(hidden))

    def _split_heads(self, part_CSD: Tensor) -> Tensor:
        """Return [C, heads, S, D / heads]."""
        return part_CSD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class SequenceEncoder(nn.Module):
    """Early fusion of candidate and actions, two layers, then the newest columns and a max pool."""

    def __init__(self, num_action_types: int, embedding_dim: int, config: ModelConfig) -> None:
        super().__init__()
        self.first_k = config.first_k
        self.width = config.action_embedding_dim + 2 * embedding_dim
        if self.width % config.num_attention_heads:
            raise ConfigurationError(
                f"model.num_attention_heads={config.num_attention_heads} does not divide the token "
                f"width {self.width}; choose a divisor or change model.action_embedding_dim"
            )
        self.num_sequence_channels = config.action_embedding_dim + embedding_dim
        self.action_embedding = nn.Embedding(
            num_action_types + 1, config.action_embedding_dim, padding_idx=PADDING_ID
        )
        self.layers = nn.ModuleList(
            TransformerLayer(self.width, config) for _ in range(config.num_layers)
        )

    @property
    def output_dim(self) -> int:
        """Width of the output: first_k columns and the max pool."""
        return (self.first_k + 1) * self.width

    def forward(
        self,
        action_types_RS: Tensor,
        action_pins_RSE: Tensor,
        is_visible_RS: Tensor,
        candidate_pins_CE: Tensor,
        request_of_C: Tensor,
    ) -> Tensor:
        """Encode each candidate's view of its request's actions.

        Args:
            action_types_RS: int64 [R, S], newest first; 0 pads.
            action_pins_RSE: float32 [R, S, E]; anything where padded.
            is_visible_RS: bool [R, S]; False where padded or hidden by the time-window mask.
            candidate_pins_CE: float32 [C, E].
            request_of_C: int64 [C], each candidate's row among the R requests.

        Returns:
            float32 [C, (K + 1) * D]: the max pool over visible actions first, then the K newest
            positions. A position that is not visible or not there is all zeros, and so is the pool
            of a request without visible actions: nothing of a hidden action gets out.
        """
        is_visible_CS = is_visible_RS[request_of_C]
        # A row without any key has no softmax: let it look at everything, and discard what it saw.
        is_key_CS = is_visible_CS | ~is_visible_CS.any(dim=1, keepdim=True)
        tokens_CSD = self._first_layer(
            action_types_RS, action_pins_RSE, candidate_pins_CE, request_of_C, is_key_CS[:, None]
        )
        for layer in self.layers[1:]:
            tokens_CSD = layer(tokens_CSD, is_key_CS[:, None])
        return self._compress(tokens_CSD, is_visible_CS)

    def _first_layer(
        self,
        action_types_RS: Tensor,
        action_pins_RSE: Tensor,
        candidate_pins_CE: Tensor,
        request_of_C: Tensor,
        is_key_C1S: Tensor,
    ) -> Tensor:
        """Return the first layer's tokens, projecting each action once per request.

        A token is [action, pin, candidate], so W token = W_seq [action, pin] + W_cand candidate:
        the larger part is the same for all candidates of a request. The key needs no candidate
        part at all (nor a bias): it adds the same number to all scores of a query, and the softmax
        does not see that.
        """
        layer = self.layers[0]
        assert isinstance(layer, TransformerLayer)
        sequence_RSd = torch.cat([self.action_embedding(action_types_RS), action_pins_RSE], dim=-1)
        weight, bias = layer.query_key_value.weight, layer.query_key_value.bias
        shared = F.linear(sequence_RSd, weight[:, : self.num_sequence_channels])  # [R, S, 3 D]
        # index_select, not indexing: its gradient is a sum per request, not a slow scatter.
        query, key, value = shared.index_select(0, request_of_C).chunk(3, dim=-1)
        own = F.linear(candidate_pins_CE, weight[:, self.num_sequence_channels :], bias)
        own_query, _, own_value = own[:, None].chunk(3, dim=-1)  # [C, 1, D]
        candidates_CSE = candidate_pins_CE[:, None].expand(-1, sequence_RSd.shape[1], -1)
        tokens_CSD = torch.cat([sequence_RSd.index_select(0, request_of_C), candidates_CSE], dim=-1)
        return layer.combine(tokens_CSD, query + own_query, key, value + own_value, is_key_C1S)

    def _compress(self, tokens_CSD: Tensor, is_visible_CS: Tensor) -> Tensor:
        """Return the max pool and the first K columns, [C, (K + 1) * D]."""
        is_hidden_CS1 = ~is_visible_CS[:, :, None]
        pooled_CD = tokens_CSD.masked_fill(is_hidden_CS1, float("-inf")).amax(dim=1)
        pooled_CD = pooled_CD.masked_fill(~is_visible_CS.any(dim=1)[:, None], 0.0)
        first = tokens_CSD[:, : self.first_k].masked_fill(is_hidden_CS1[:, : self.first_k], 0.0)
        missing = self.first_k - first.shape[1]
        first_CKD = F.pad(first, (0, 0, 0, missing)) if missing > 0 else first
        return torch.cat([pooled_CD, first_CKD.flatten(1)], dim=1)
