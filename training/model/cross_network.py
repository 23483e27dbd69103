"""Full-rank DCN v2, which multiplies features with each other explicitly.

Not for the tower that follows it: that is in `training.model.ranker`.

Letters: C candidates, X input width.
"""

from torch import Tensor, nn


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
        x_CX = x_0_CX
        for layer in self.layers:
            x_CX = x_0_CX * layer(x_CX) + x_CX
        return x_CX
