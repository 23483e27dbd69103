"""The cross network by hand."""

import torch

from training.model.ranker import CrossNetwork


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


def test_without_layers_the_input_comes_out() -> None:
    x = torch.randn(4, 3)
    assert torch.equal(CrossNetwork(3, num_layers=0)(x), x)
