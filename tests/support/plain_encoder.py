"""The published encoder written plainly with `nn.TransformerEncoder`: what ours is held against.

One row per candidate, sequences repeated for each and padded to the full length; parameters bear
the public module's names. In training mode only: in evaluation PyTorch's fast path differs.

Letters: C candidates, S positions, E pin embedding, A action embedding, D token width.
"""

import torch
from torch import Tensor, nn

from pipelines.contracts.config import ModelConfig


class PlainTransAct(nn.Module):
    """Tokens -> `nn.TransformerEncoder` -> [linear(max pool), first K]."""

    def __init__(self, num_action_types: int, embedding_dim: int, config: ModelConfig) -> None:
        super().__init__()
        width = config.action_embedding_dim + 2 * embedding_dim
        self.first_k, self.max_actions = config.first_k, config.max_actions
        self.action_emb_module = nn.Embedding(num_action_types, config.action_embedding_dim)
        layer = nn.TransformerEncoderLayer(
            width,
            config.num_attention_heads,
            config.feedforward_dim,
            config.dropout,
            batch_first=True,
        )
        self.transformer_encoder = nn.TransformerEncoder(
            layer, config.num_layers, enable_nested_tensor=False
        )
        self.out_linear = nn.Linear(width, width)

    def forward(
        self,
        action_types_RS: Tensor,
        action_pins_RSE: Tensor,
        is_visible_RS: Tensor,
        candidate_pins_CE: Tensor,
        request_of_C: Tensor,
        action_pin_keys_RS: Tensor | None = None,
    ) -> Tensor:
        """Return [C, (K + 1) D]; arguments as those of `SequenceEncoder`, keys not being read."""
        missing = self.max_actions - action_types_RS.shape[1]
        types_RS = nn.functional.pad(action_types_RS, (0, missing))
        pins_RSE = nn.functional.pad(action_pins_RSE, (0, 0, 0, missing))
        is_hidden_RS = ~nn.functional.pad(is_visible_RS, (0, missing))
        is_hidden_RS[:, 0] = False
        actions_RSA = self.action_emb_module((types_RS - 1).clamp(min=0))
        actions_RSA = actions_RSA * (types_RS > 0)[:, :, None]  # padding is zero
        sequence_CSd = torch.cat([actions_RSA, pins_RSE], dim=-1)[request_of_C]
        candidates_CSE = candidate_pins_CE[:, None].expand(-1, self.max_actions, -1)
        out_CSD = self.transformer_encoder(
            torch.cat([sequence_CSd, candidates_CSE], dim=-1),
            src_key_padding_mask=is_hidden_RS[request_of_C],
        )
        pooled_CD = self.out_linear(out_CSD.max(dim=1).values)
        return torch.cat([pooled_CD, out_CSD[:, : self.first_k].flatten(1)], dim=1)
