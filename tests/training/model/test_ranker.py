"""The parts of the ranker, by hand: the cross network, and the mean in the encoder's place."""

import pytest
import torch

from pipelines.contracts.config import FeatureConfig, Head, ModelConfig
from training.model.average_pooling import AveragePooling
from training.model.ranker import CrossNetwork, Ranker

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


def test_two_crosses_by_hand() -> None:
    network = CrossNetwork(2, num_layers=2)
    first, second = network.layers
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        first.bias.copy_(torch.tensor([0.5, 0.0]))
        second.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        second.bias.copy_(torch.tensor([0.0, -1.0]))
    # x0 = (1, 3): W1 x0 + b1 = (7.5, 3), x1 = x0 * that + x0 = (8.5, 12)
    # W2 x1 + b2 = (12, 7.5), x2 = x0 * that + x1 = (20.5, 34.5)
    assert torch.equal(network(torch.tensor([[1.0, 3.0]])), torch.tensor([[20.5, 34.5]]))


def test_its_matrices_are_of_full_rank() -> None:
    network = CrossNetwork(5, num_layers=3)
    assert [tuple(layer.weight.shape) for layer in network.layers] == [(5, 5)] * 3


def test_without_layers_the_input_comes_out() -> None:
    x = torch.randn(4, 3)
    assert torch.equal(CrossNetwork(3, num_layers=0)(x), x)
