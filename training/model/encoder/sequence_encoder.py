"""The TransAct sequence encoder: what a user did lately, seen from each candidate pin.

The layers are our own: `nn.TransformerEncoder` takes another path in evaluation and fills padded
positions differently there (pytorch#86120, #128209). Not for features that need no learning: those
are `training.model.matches`.

Letters: R requests, C candidates of all requests, S actions per request (newest first, padded),
M candidates of a request, E pin embedding, A action embedding, d = A + E sequence channels,
D = A + 2 E token width (d where candidates are appended), K first_k.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.contracts.config import ModelConfig
from pipelines.contracts.errors import ConfigurationError
from training.model.encoder.groups import CPU_LIMITS, GPU_LIMITS, Group, plan_groups
from training.model.encoder.layer import TransformerLayer, encode
from training.model.encoder.tokens import (
    TokenRoles,
    Tokens,
    merge_equal,
    reference_tokens,
    visible_tokens,
)

PADDING_ID = 0
"""The action type id that pads; real action types count from 1."""

NUM_AGE_BUCKETS = 20
_MINUTE_MS = 60_000.0


class Plan(NamedTuple):
    """Which positions of a batch are computed, and which requests together."""

    tokens: Tokens
    groups: list[Group]


class SequenceEncoder(nn.Module):
    """Early fusion of candidate and actions, transformer layers, a max pool and the newest columns.

    In the `reference` variant, the published encoder, hidden and padded positions reach the output
    through their own columns and through the max pool, position 0 is a key even where it is
    padding, and a linear layer follows the pool. The default keeps everything that is hidden out of
    the output, and has no such linear layer, because the cross network that follows begins with
    one. In the variant `append` the candidate is a last token instead, which looks at the actions
    and takes the pool's place.
    """

    def __init__(self, num_action_types: int, embedding_dim: int, config: ModelConfig) -> None:
        super().__init__()
        self.first_k = config.first_k
        self.max_actions = config.max_actions
        self.dropout = config.dropout
        self.is_reference = config.encoder_variant == "reference"
        self.is_appended = config.encoder_variant == "append"
        self.width = config.action_embedding_dim + (2 - self.is_appended) * embedding_dim
        if self.width % config.num_attention_heads:
            raise ConfigurationError(
                f"model.num_attention_heads={config.num_attention_heads} does not divide the token "
                f"width {self.width}; choose a divisor or change model.action_embedding_dim"
            )
        self.action_embedding = nn.Embedding(
            num_action_types + 1, config.action_embedding_dim, padding_idx=PADDING_ID
        )
        self.age_embedding = None
        if config.use_action_ages:
            self.age_embedding = nn.Embedding(NUM_AGE_BUCKETS, config.action_embedding_dim)
            nn.init.zeros_(self.age_embedding.weight)
        self.layers = nn.ModuleList(
            TransformerLayer(self.width, config) for _ in range(config.num_layers)
        )
        self.pool_linear = nn.Linear(self.width, self.width) if self.is_reference else None

    @property
    def output_dim(self) -> int:
        """Width of the output: the max pool and first_k columns."""
        return (self.first_k + 1) * self.width

    def forward(
        self,
        action_types_RS: Tensor,
        action_pins_RSE: Tensor,
        is_visible_RS: Tensor,
        candidate_pins_CE: Tensor,
        request_of_C: Tensor,
        action_ages_ms_RS: Tensor | None = None,
        action_pin_keys_RS: Tensor | None = None,
        plan: Plan | None = None,
    ) -> Tensor:
        """Encode each candidate's view of its request's actions.

        Args:
            action_types_RS: int64 [R, S], newest first; 0 pads, at the end of a row.
            action_pins_RSE: float32 [R, S, E]; 0 where padded.
            is_visible_RS: bool [R, S]; False where padded or hidden by the time-window mask.
            candidate_pins_CE: float32 [C, E].
            request_of_C: int64 [C], ascending: each candidate's row among the R requests.
            action_ages_ms_RS: int64 [R, S], milliseconds. Needed, and read, with use_action_ages.
            action_pin_keys_RS: int64 [R, S], -1 where padded; equal keys are the same pin. The
                keys change no number. They save time without dropout, as equal actions are
                computed once.
            plan: of `plan`, on the encoder's device. Without one the batch must be on the host.

        Returns:
            float32 [C, (K + 1) * D]: the max pool first, then the K newest positions. By default
            the pool is taken over visible actions. The column of a position that is not visible or
            does not exist is all zeros, and so is the pool of a request without visible actions.
            So nothing of a hidden action gets out. The class describes the reference variant.
        """
        described_RSA = self.action_embedding(action_types_RS)  # zeros where padded
        if self.age_embedding is not None:
            assert action_ages_ms_RS is not None
            # each bucket is twice as long as the one before: a minute, two, four, ... half a year
            minutes_RS = action_ages_ms_RS.clamp(min=0) / _MINUTE_MS
            bucket_RS = torch.log2(1.0 + minutes_RS).long().clamp(max=NUM_AGE_BUCKETS - 1)
            is_action_RS1 = (action_types_RS != PADDING_ID)[:, :, None]
            described_RSA = described_RSA + self.age_embedding(bucket_RS) * is_action_RS1
        planned = action_types_RS, action_pins_RSE, is_visible_RS, request_of_C, action_pin_keys_RS
        tokens, groups = plan or self.plan(*planned)
        sequence_RSd = torch.cat([described_RSA, action_pins_RSE], dim=-1)
        missing = tokens.position_RS.shape[1] - sequence_RSd.shape[1]
        index = tokens.position_RS[:, :, None].expand(-1, -1, sequence_RSd.shape[2])
        sequence_RSd = F.pad(sequence_RSd, (0, 0, 0, missing)).gather(1, index)
        modules: Any = self.layers
        layers = [(layer, layer.matrices()) for layer in modules]
        encoded, candidates = [], []
        for group in groups:
            own_RSd = sequence_RSd.index_select(0, group.request_R)[:, : group.num_tokens]
            candidates_RME = candidate_pins_CE[group.candidate_RM]
            columns_RMKD = self._encode(layers, own_RSd, candidates_RME, tokens, group)
            # index_select, not indexing: its gradient is a sum per row, not a slow scatter
            encoded.append(columns_RMKD.flatten(0, 1).index_select(0, group.real_N))
            candidates.append(group.candidate_RM.flatten().index_select(0, group.real_N))
        place_C = torch.argsort(torch.cat(candidates))
        return torch.cat(encoded).index_select(0, place_C).flatten(1)

    def plan(
        self,
        action_types_RS: Tensor,
        action_pins_RSE: Tensor,
        is_visible_RS: Tensor,
        request_of_C: Tensor,
        action_pin_keys_RS: Tensor | None = None,
    ) -> Plan:
        """Return what is computed of a batch on the host. Arguments are those of `forward`."""
        missing = 0
        if self.is_reference:
            # room for one padded position, which stands for all of them
            missing = int(action_types_RS.shape[1] < self.max_actions)
            types_RS = F.pad(action_types_RS, (0, missing))
            is_visible_RS = F.pad(is_visible_RS, (0, missing))
            is_action_RS = types_RS != PADDING_ID
            tokens = reference_tokens(is_action_RS, is_visible_RS, self.first_k, self.max_actions)
        else:
            tokens = visible_tokens(is_visible_RS, self.first_k)
        # Dropout tells equal actions apart, and so may their ages.
        is_merged = self.age_embedding is None and not (self.training and self.dropout > 0)
        if action_pin_keys_RS is not None and is_merged:
            num_types = self.action_embedding.num_embeddings
            identity_RS = (action_pin_keys_RS + 1) * num_types + action_types_RS
            pins_RSE = F.pad(action_pins_RSE.detach(), (0, 0, 0, missing))
            tokens = merge_equal(tokens, F.pad(identity_RS, (0, missing)), pins_RSE)
        limits = CPU_LIMITS if self.action_embedding.weight.is_cpu else GPU_LIMITS
        return Plan(tokens, plan_groups(tokens, request_of_C, limits, self.is_appended))

    def _encode(
        self,
        layers: list[Any],
        sequence_RSd: Tensor,
        candidates_RME: Tensor,
        tokens: Tokens,
        group: Group,
    ) -> Tensor:
        """Return the encoding of a group's candidates, float [R, M, 1 + K, D].

        The tokens are those of the whole batch.
        """
        own = Tokens(*(part.index_select(0, group.request_R) for part in tokens))
        count_RS = own.count_RS[:, : group.num_tokens]
        roles = TokenRoles(
            log_count_RS=None if group.is_full else count_RS.to(sequence_RSd.dtype).log(),
            num_pooled_R=own.num_pooled_R.clamp(min=1),
            newest_RK=own.first_RK.clamp(min=0),
        )
        columns_RMKD = encode(layers, sequence_RSd, candidates_RME, roles, self.is_appended)
        has_pool_R1 = own.num_pooled_R[:, None] > 0
        is_there_RK = torch.cat([has_pool_R1, own.first_RK >= 0], dim=1)
        columns_RMKD = columns_RMKD.masked_fill(~is_there_RK[:, None, :, None], 0.0)
        if self.pool_linear is None:
            return columns_RMKD
        pooled, newest = columns_RMKD.split([1, self.first_k], dim=2)
        return torch.cat([self.pool_linear(pooled), newest], dim=2)
