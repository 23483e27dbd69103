"""The ranker: it puts all features side by side, crosses them, and gives one logit per head.

Not for fitting it: that is `training.fitting.lightning_module`. Not for calibration: that is
`training.bundle.calibration`.

Letters: R requests, C candidates, S actions per request, E pin embedding, G categorical features,
N numeric inputs, H heads, X all features side by side.
"""

from typing import cast

import torch
from torch import Tensor, nn

from pipelines.contracts.config import FeatureConfig, ModelConfig
from training.data.batches import Batch, FeatureStatistics
from training.model.encoder.matrix_products import linear
from training.model.encoder.sequence_encoder import Plan, SequenceEncoder
from training.model.matches import num_match_features, sequence_matches


class CrossNetwork(nn.Module):
    """Layers x_next = x_0 * (W x + b) + x with a full X by X matrix W (Wang et al., 2021)."""

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))

    def forward(self, x_0_CX: Tensor) -> Tensor:
        """Return float [C, X]: numbers that depend on products of the input's features.

        A number is a sum of products, each of up to num_layers + 1 features. Shape and precision
        are the input's.
        """
        x_CX, layers = x_0_CX, cast("list[nn.Linear]", self.layers)
        for layer in layers:
            x_CX = x_0_CX * linear(x_CX, layer.weight, layer.bias) + x_CX
        return x_CX


class Ranker(nn.Module):
    """TransAct encoder, sequence matches, embeddings and features -> DCN v2 -> MLP -> heads."""

    def __init__(self, features: FeatureConfig, config: ModelConfig, embedding_dim: int) -> None:
        super().__init__()
        self.num_action_types = len(features.action_types)
        self.encoder = (
            SequenceEncoder(self.num_action_types, embedding_dim, config)
            if config.use_sequence_encoder
            else None
        )
        self.use_sequence_matches = config.use_sequence_matches
        self.categorical = nn.ModuleList(
            nn.Embedding(len(feature.values) + 1, config.categorical_dim)
            for feature in features.categorical
        )
        num_numeric = len(features.numeric_inputs)
        self.register_buffer("numeric_mean_N", torch.zeros(num_numeric))
        self.register_buffer("numeric_scale_N", torch.ones(num_numeric))
        self.register_buffer("pin_scale", torch.ones(()))
        self.register_buffer("user_scale", torch.ones(()))
        # both embeddings, and their dot product
        width = 2 * embedding_dim + 1 + len(self.categorical) * config.categorical_dim + num_numeric
        width += self.encoder.output_dim if self.encoder is not None else 0
        width += num_match_features(self.num_action_types) if self.use_sequence_matches else 0
        self.cross_network = CrossNetwork(width, config.num_cross_layers)
        tower: list[nn.Module] = []  # the MLP between the cross network and the heads
        for dim in config.mlp_dims:
            tower += [nn.Linear(width, dim), nn.ReLU(), nn.Dropout(config.mlp_dropout)]
            width = dim
        self.tower = nn.Sequential(*tower)
        self.heads = nn.Linear(width, len(features.heads))

    def adopt(self, statistics: FeatureStatistics) -> None:
        """Take the scales of the training rows, and let every head start at its base rate."""
        self.numeric_mean_N = torch.as_tensor(statistics.numeric_mean_N, dtype=torch.float32)
        self.numeric_scale_N = torch.as_tensor(statistics.numeric_scale_N, dtype=torch.float32)
        self.pin_scale = torch.tensor(statistics.pin_scale)
        self.user_scale = torch.tensor(statistics.user_scale)
        rates_H = torch.as_tensor(statistics.head_rates_H, dtype=torch.float32)
        with torch.no_grad():
            self.heads.bias.copy_(torch.logit(rates_H))

    def plan(self, batch: Batch, is_visible_RS: Tensor) -> Plan | None:
        """Return what the encoder computes of a batch that is on the host."""
        if self.encoder is None:
            return None
        return self.encoder.plan(
            *(batch.action_types_RS, batch.action_pins_RSE, is_visible_RS),
            *(batch.request_of_C, batch.action_pin_keys_RS),
        )

    def forward(self, batch: Batch, is_visible_RS: Tensor, plan: Plan | None = None) -> Tensor:
        """Return one logit per candidate and head.

        Args:
            batch: see `Batch`. Its labels and weights are not read.
            is_visible_RS: bool [R, S], from `visible_actions`.
            plan: of `plan`. Without one the batch must be on the host.

        Returns:
            float32 [C, H], or float64 if the weights are. The logits are not calibrated: they are
            those of the training rows, of which some without actions may have been left out.
        """
        # A block of many components (an embedding or an encoder column) is divided by the square
        # root of its width, so that it weighs like one feature and not like dozens. On the sample
        # this raises the repin volume at 3 by 0.8 % (docs/decisions.md).
        candidates_CE = batch.candidate_pins_CE * self.pin_scale
        users_CE = (batch.users_RE * self.user_scale)[batch.request_of_C]
        embedding_root = candidates_CE.shape[1] ** 0.5
        parts = [
            candidates_CE / embedding_root,
            users_CE / embedding_root,
            (users_CE * candidates_CE).sum(dim=1, keepdim=True) / embedding_root,
            (batch.numeric_CN - self.numeric_mean_N) / self.numeric_scale_N,
        ]
        parts += [table(batch.categorical_CG[:, g]) for g, table in enumerate(self.categorical)]
        if self.use_sequence_matches:
            parts.append(sequence_matches(batch, is_visible_RS, self.num_action_types))
        if self.encoder is not None:
            encoded = self.encoder(
                batch.action_types_RS,
                batch.action_pins_RSE * self.pin_scale,
                is_visible_RS,
                candidates_CE,
                batch.request_of_C,
                batch.action_ages_ms_RS,
                batch.action_pin_keys_RS,
                plan,
            )
            parts.append(encoded / self.encoder.width**0.5)
        crossed_CX = self.cross_network(torch.cat([self._whole(part) for part in parts], dim=1))
        return self._whole(self.heads(self.tower(crossed_CX)))

    def _whole(self, part: Tensor) -> Tensor:
        """Return a tensor in the weights' precision, which autocast may have lowered."""
        return part.to(self.heads.weight.dtype)
