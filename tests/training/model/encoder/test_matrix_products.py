"""The products that oneDNN makes, and their gradients, are those of PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.model.encoder.matrix_products import ROW_STEP, linear

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def ran(function, tensors: list[Tensor], weight: Tensor) -> list[Tensor]:
    out = function(*tensors)
    return [out, *torch.autograd.grad(out, tensors, weight.to(out.dtype))]


@pytest.mark.parametrize("has_one_dnn", [True, False], ids=["oneDNN", "without"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("num_added", [0, 1, 2])
@pytest.mark.parametrize("rows", [(ROW_STEP,), (2, 3), (0,)])
def test_linear(rows, num_added: int, dtype, has_one_dnn: bool) -> None:
    torch.manual_seed(1)
    wide = torch.randn(32, 200, dtype=torch.float64)
    # rows with gaps between them, as where a matrix is a part of a larger one
    exact = [torch.randn(*rows, 96, dtype=torch.float64), wide[:, 60:156]]
    exact += [torch.randn(32), torch.randn(*rows, 32)][:num_added]
    exact = [each.double().requires_grad_() for each in exact]
    weight = torch.randn(*rows, 32, dtype=torch.float64)
    tensors = [each.to(dtype).detach().requires_grad_() for each in exact]
    with torch.backends.mkldnn.flags(enabled=has_one_dnn):
        found = ran(linear, tensors, weight)
    expected = ran(lambda x, w, b=None, plus=0.0: F.linear(x, w, b) + plus, exact, weight)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        atol = TOLERANCE[dtype] * max(
            1.0, float(other.detach().abs().max() if other.numel() else 0)
        )
        torch.testing.assert_close(one.double(), other, rtol=0, atol=atol)


def test_a_sum_keeps_its_precision_within_an_autocast() -> None:
    x, weight, plus = torch.randn(5, 8), torch.randn(3, 8), torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
        assert linear(x, weight, plus=plus).dtype == torch.float32
