"""The TransAct sequence encoder: what a user did lately, seen from each candidate pin.

Own layers over `scaled_dot_product_attention`, because `nn.TransformerEncoder` takes another path
in evaluation and fills padded positions differently there (pytorch#86120, #128209). Not for
features that need no learning: those are `training.model.matches`.

Letters: R requests, C candidates of all requests, S actions per request (newest first, padded),
M candidates of a request, E pin embedding, A action embedding, D = A + 2 E token width, K first_k.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.contracts.config import ModelConfig
from pipelines.contracts.errors import ConfigurationError
from training.model.encoder.columns import MaxAndNewest
from training.model.encoder.cpu.layer_stack import Columns, LayerStack
from training.model.encoder.layer import TransformerLayer
from training.model.encoder.plan import (
    COST_OF_PARTS,
    Tokens,
    merge_equal,
    plan_groups,
    reference_tokens,
    up_to,
    visible_tokens,
)

PADDING_ID = 0
"""The action type id that pads; real action types count from 1."""

NUM_AGE_BUCKETS = 20
_MINUTE_MS = 60_000.0


class SequenceEncoder(nn.Module):
    """Early fusion of candidate and actions, two layers, then a max pool and the newest columns.

    The `reference` variant is the published encoder: its hidden and padded positions reach the
    output through their own columns and the max pool, position 0 is a key even when it is padding,
    and a linear layer follows the pool. The default keeps all that is hidden out, and has no such
    layer: the cross network that follows begins with one.
    """

    def __init__(self, num_action_types: int, embedding_dim: int, config: ModelConfig) -> None:
        super().__init__()
        self.first_k = config.first_k
        self.max_actions = config.max_actions
        self.is_reference = config.encoder_variant == "reference"
        self.use_candidate_fusion = config.use_candidate_fusion
        self.use_action_types = config.use_action_types
        self.width = config.action_embedding_dim + 2 * embedding_dim
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
    ) -> Tensor:
        """Encode each candidate's view of its request's actions.

        Args:
            action_types_RS: int64 [R, S], newest first; 0 pads, at the end of a row.
            action_pins_RSE: float32 [R, S, E]; 0 where padded.
            is_visible_RS: bool [R, S]; False where padded or hidden by the time-window mask.
            candidate_pins_CE: float32 [C, E].
            request_of_C: int64 [C], in any order: each candidate's row among the R requests.
            action_ages_ms_RS: int64 [R, S], milliseconds; needed, and read, with use_action_ages.
            action_pin_keys_RS: int64 [R, S], -1 where padded; equal keys are the same pin. Saves
                time on a CPU: actions found to be equal are computed once. Changes no number.

        Returns:
            float32 [C, (K + 1) * D]: the max pool first, then the K newest positions. By default
            the pool is over visible actions, a position that is not visible or not there is all
            zeros, and so is the pool of a request without visible actions: nothing of a hidden
            action gets out. The reference variant is described at the class.
        """
        if not self.use_action_types:
            action_types_RS = (action_types_RS != PADDING_ID).long()
        if not self.use_candidate_fusion:
            candidate_pins_CE = torch.zeros_like(candidate_pins_CE)
        described_RSA = self._describe(action_types_RS, action_ages_ms_RS)
        sequence_RSd = torch.cat([described_RSA, action_pins_RSE], dim=-1)
        inputs = action_types_RS, sequence_RSd, is_visible_RS, candidate_pins_CE, request_of_C
        # compiled code cannot look at lengths, and a GPU should not wait for them
        if torch.compiler.is_compiling() or candidate_pins_CE.is_cuda or len(request_of_C) == 0:
            return self._encode_each(*inputs)
        identity_RS = None
        if action_pin_keys_RS is not None and self.age_embedding is None:
            num_types = self.action_embedding.num_embeddings
            identity_RS = (action_pin_keys_RS + 1) * num_types + action_types_RS
        return self._encode_grouped(*inputs, identity_RS)

    def _encode_each(
        self,
        action_types_RS: Tensor,
        sequence_RSd: Tensor,
        is_visible_RS: Tensor,
        candidate_pins_CE: Tensor,
        request_of_C: Tensor,
    ) -> Tensor:
        """Encode every candidate by itself, over all positions."""
        sequence_RSd, tokens = self._tokens(action_types_RS, sequence_RSd, is_visible_RS, None)
        # index_select, not indexing: its gradient is a sum per request, not a slow scatter
        own = Tokens(*(part.index_select(0, request_of_C) for part in tokens))
        sequence_CSd = sequence_RSd.index_select(0, request_of_C)
        encoded = self._encode(sequence_CSd, candidate_pins_CE[:, None], own, own.count_RS > 0)
        return encoded.flatten(1)

    def _encode_grouped(
        self,
        action_types_RS: Tensor,
        sequence_RSd: Tensor,
        is_visible_RS: Tensor,
        candidate_pins_CE: Tensor,
        request_of_C: Tensor,
        identity_RS: Tensor | None,
    ) -> Tensor:
        """Encode requests of similar length together, their candidates side by side."""
        sequence_RSd, tokens = self._tokens(
            action_types_RS, sequence_RSd, is_visible_RS, identity_RS
        )
        order_C = torch.argsort(request_of_C, stable=True)  # a request's candidates side by side
        encoded, rows = [], []
        cost_of_length = COST_OF_PARTS if self._may_be_fused(sequence_RSd) else 1.0
        ascending_C = request_of_C.index_select(0, order_C)
        for group in plan_groups(tokens, ascending_C, cost_of_length):
            candidate = order_C.index_select(0, group.candidate_RM.flatten())
            own = Tokens(*(part.index_select(0, group.request_R) for part in tokens))
            # log n, -inf for none: what is added to the scores of a token that stands for n actions
            count_RS = own.count_RS[:, : group.num_tokens]
            mask_RS = None if group.is_full else count_RS.to(sequence_RSd.dtype).log()
            sequence = sequence_RSd.index_select(0, group.request_R)[:, : group.num_tokens]
            candidates = candidate_pins_CE.index_select(0, candidate)
            candidates_RME = candidates.unflatten(0, group.candidate_RM.shape)
            part = self._encode(sequence, candidates_RME, own, mask_RS).flatten(0, 1)
            is_real = group.is_candidate_RM.flatten()
            real = torch.nonzero(is_real)[:, 0]
            encoded.append(part if len(real) == len(part) else part.index_select(0, real))
            rows.append(candidate[is_real])
        place_C = torch.argsort(torch.cat(rows))
        return torch.cat(encoded).index_select(0, place_C).flatten(1)

    def _describe(self, action_types_RS: Tensor, action_ages_ms_RS: Tensor | None) -> Tensor:
        """Return what an action is apart from its pin, float [R, S, A]; zeros where padded."""
        described_RSA = self.action_embedding(action_types_RS)
        if self.age_embedding is None:
            return described_RSA
        assert action_ages_ms_RS is not None
        # each bucket twice as long as the one before: a minute, two, four, ... half a year
        minutes_RS = action_ages_ms_RS.clamp(min=0) / _MINUTE_MS
        bucket_RS = torch.log2(1.0 + minutes_RS).long().clamp(max=NUM_AGE_BUCKETS - 1)
        is_action_RS1 = (action_types_RS != PADDING_ID)[:, :, None]
        return described_RSA + self.age_embedding(bucket_RS) * is_action_RS1

    def _tokens(
        self,
        action_types_RS: Tensor,
        sequence_RSd: Tensor,
        is_visible_RS: Tensor,
        identity_RS: Tensor | None,
    ) -> tuple[Tensor, Tokens]:
        """Return [action, pin] of every token, float [R, S, d], and what the tokens are."""
        if self.is_reference and action_types_RS.shape[1] < self.max_actions:
            # room for one padded position, which stands for all of them
            action_types_RS, is_visible_RS = (
                F.pad(action_types_RS, (0, 1)),
                F.pad(is_visible_RS, (0, 1)),
            )
            sequence_RSd = F.pad(sequence_RSd, (0, 0, 0, 1))
        if self.is_reference:
            is_action_RS = action_types_RS != PADDING_ID
            tokens = reference_tokens(is_action_RS, is_visible_RS, self.first_k, self.max_actions)
        else:
            tokens = visible_tokens(is_visible_RS, self.first_k)
        # dropout would tell equal actions apart
        if identity_RS is not None and self._may_be_fused(sequence_RSd):
            missing = sequence_RSd.shape[1] - identity_RS.shape[1]
            tokens = merge_equal(tokens, F.pad(identity_RS, (0, missing)), sequence_RSd.detach())
        index = tokens.position_RS[:, :, None].expand_as(sequence_RSd)
        return sequence_RSd.gather(1, index), tokens

    def _encode(
        self,
        sequence_RSd: Tensor,
        candidates_RME: Tensor,
        tokens: Tokens,
        mask_RS: Tensor | None,
    ) -> Tensor:
        """Return the encoding of each request's candidates, float [R, M, 1 + K, D]."""
        columns = Columns(
            mask_RS=mask_RS,
            num_tokens_R=tokens.num_tokens_R,
            num_pooled_R=tokens.num_pooled_R.clamp(min=1),
            index_RK=tokens.first_RK.clamp(min=0),
        )
        columns_RMKD = self._fused(sequence_RSd, candidates_RME, columns)
        if columns_RMKD is None:
            columns_RMKD = self._plain(sequence_RSd, candidates_RME, columns)
        has_pool_R1 = tokens.num_pooled_R[:, None] > 0
        is_there_RK = torch.cat([has_pool_R1, tokens.first_RK >= 0], dim=1)
        columns_RMKD = columns_RMKD.masked_fill(~is_there_RK[:, None, :, None], 0.0)
        if self.pool_linear is None:
            return columns_RMKD
        pooled, newest = columns_RMKD.split([1, self.first_k], dim=2)
        return torch.cat([self.pool_linear(pooled), newest], dim=2)

    def _fused(
        self, sequence_RSd: Tensor, candidates_RME: Tensor, columns: Columns
    ) -> Tensor | None:
        """Return the columns, float [R, M, 1 + K, D], or None where only plain layers will do."""
        has_bool_mask = columns.mask_RS is not None and columns.mask_RS.dtype == torch.bool
        if not len(sequence_RSd) or has_bool_mask or not self._may_be_fused(sequence_RSd):
            return None
        is_autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if is_autocast else None
        first, *others = self._layers()
        with torch.autocast("cpu", enabled=False):
            factors = first.factors(sequence_RSd, candidates_RME, columns.mask_RS)
            if factors is None:
                return None
            parameters = first.fused_parameters(is_first=True)
            for layer in others:
                parameters += layer.fused_parameters(is_first=False)
            return LayerStack.apply(columns, dtype, torch.is_grad_enabled(), *factors, *parameters)

    def _plain(self, sequence_RSd: Tensor, candidates_RME: Tensor, columns: Columns) -> Tensor:
        """Return the same as `_fused`, for any device, dropout and number of heads."""
        first, *others = self._layers()
        tokens_RMSD = first.first(sequence_RSd, candidates_RME, columns.mask_RS)
        for layer in others:
            tokens_RMSD = layer(tokens_RMSD, columns.mask_RS)
        return _columns(tokens_RMSD, columns.num_pooled_R, columns.index_RK)

    def _may_be_fused(self, tokens: Tensor) -> bool:
        return all(layer.may_be_fused(tokens) for layer in self._layers())

    def _layers(self) -> list[TransformerLayer]:
        layers = [layer for layer in self.layers if isinstance(layer, TransformerLayer)]
        assert len(layers) == len(self.layers)
        return layers


def _columns(tokens_RMSD: Tensor, num_pooled_R: Tensor, index_RK: Tensor) -> Tensor:
    """Return the largest of each channel, then the tokens at some places, [R, M, 1 + K, D]."""
    # compiled code cannot look at the lengths, and a GPU should not wait for them
    may_look = not torch.compiler.is_compiling() and not tokens_RMSD.is_cuda
    if may_look and len(tokens_RMSD):
        return MaxAndNewest.apply(tokens_RMSD, num_pooled_R, index_RK)
    is_pooled_RS = up_to(num_pooled_R, tokens_RMSD.shape[2])
    pooled = tokens_RMSD.masked_fill(~is_pooled_RS[:, None, :, None], float("-inf"))
    index = index_RK[:, None, :, None].expand(-1, tokens_RMSD.shape[1], -1, tokens_RMSD.shape[3])
    return torch.cat([pooled.amax(dim=2, keepdim=True), tokens_RMSD.gather(2, index)], dim=2)
