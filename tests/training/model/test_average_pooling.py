"""The baseline of the encoder: a mean that only visible actions enter."""

import pytest
import torch

from pipelines.contracts.config import FeatureConfig, Head, ModelConfig
from training.model.average_pooling import AveragePooling
from training.model.ranker import Ranker

CONFIG = ModelConfig(encoder_variant="average", action_embedding_dim=2)


def test_the_mean_by_hand() -> None:
    pooling = AveragePooling(2, 1, CONFIG)
    with torch.no_grad():
        pooling.action_embedding.weight[1:] = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    found = pooling(
        action_types_RS=torch.tensor([[1, 2, 1], [2, 0, 0]]),
        action_pins_RSE=torch.tensor([[[10.0], [20.0], [90.0]], [[5.0], [0.0], [0.0]]]),
        is_visible_RS=torch.tensor([[True, True, False], [False, False, False]]),
        candidate_pins_CE=torch.ones(3, 1),
        request_of_C=torch.tensor([1, 0, 0]),
    )
    assert found.tolist() == [[0, 0, 0], [0.5, 1.5, 15], [0.5, 1.5, 15]]
    assert pooling.output_dim == 3


@pytest.mark.parametrize("variant", ["default", "reference", "average"])
def test_the_ranker_has_the_encoder_that_was_asked_for(variant: str) -> None:
    features = FeatureConfig(
        action_types=("repin",), heads=(Head(name="r", action_type="repin", utility_weight=1.0),)
    )
    ranker = Ranker(features, ModelConfig(encoder_variant=variant), embedding_dim=4)
    assert isinstance(ranker.encoder, AveragePooling) == (variant == "average")
