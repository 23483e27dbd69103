"""The usual baseline for a sequence: the mean of its actions, which does not see the candidate.

`model.encoder_variant = "average"` puts it in the place of the encoder to measure what the encoder
adds. It is not for serving.

Letters: R requests, C candidates, S actions per request, E pin embedding, A action embedding,
D = A + E.
"""

import torch
from torch import Tensor, nn

from pipelines.contracts.config import ModelConfig
from training.model.encoder.sequence_encoder import PADDING_ID


class AveragePooling(nn.Module):
    """Mean over the visible actions of [action type's embedding, pin's embedding]."""

    def __init__(self, num_action_types: int, embedding_dim: int, config: ModelConfig) -> None:
        super().__init__()
        self.width = config.action_embedding_dim + embedding_dim
        self.action_embedding = nn.Embedding(
            num_action_types + 1, config.action_embedding_dim, padding_idx=PADDING_ID
        )

    @property
    def output_dim(self) -> int:
        """Width of the output."""
        return self.width

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
        """Return, for each candidate, the mean over its request's visible actions, float32 [C, D].

        The arguments are those of `SequenceEncoder.forward`. A request without visible actions has
        a mean of zeros.
        """
        tokens_RSD = torch.cat([self.action_embedding(action_types_RS), action_pins_RSE], dim=-1)
        shown_RS1 = is_visible_RS[:, :, None].to(tokens_RSD.dtype)
        mean_RD = (tokens_RSD * shown_RS1).sum(dim=1) / shown_RS1.sum(dim=1).clamp(min=1.0)
        return mean_RD.index_select(0, request_of_C)
