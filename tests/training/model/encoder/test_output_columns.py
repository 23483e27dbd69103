"""The output columns and their gradients against plain indexing."""

import pytest
import torch

from training.model.encoder.output_columns import OutputColumns

D = 12


@pytest.mark.parametrize("num_pooled", [[7, 7, 7], [7, 3, 7], [1, 7, 2], [2, 2, 1]])
def test_the_pool_and_the_newest_are_those_of_plain_indexing(num_pooled: list[int]) -> None:
    torch.manual_seed(11)
    tokens = torch.randn(3, 2, 7, D, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[0, 1, 2], [2, 0, 2], [6, 6, 5]])
    pooled = [tokens[r, :, :count].amax(dim=1) for r, count in enumerate(num_pooled)]
    newest = [tokens[r][:, index[r]] for r in range(3)]
    plain = torch.cat([torch.stack(pooled)[:, :, None], torch.stack(newest)], dim=2)
    ours = OutputColumns.apply(tokens, torch.tensor(num_pooled), index)
    gradient = torch.randn(3, 2, 4, D, dtype=torch.float64)
    found, expected = (torch.autograd.grad(out, tokens, gradient) for out in (ours, plain))
    for one, other in ((ours, plain), (found[0], expected[0])):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
