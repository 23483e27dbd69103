"""Matrix products of the encoder's layers, for CPUs.

PyTorch multiplies float32 matrices with MKL, which on other makers' processors leaves the widest
vector instructions unused. oneDNN, which comes with PyTorch too, uses them; it also adds a bias,
takes a ReLU or adds another matrix while the result is still in a register. It builds a kernel for
every new shape, though, at the price of some ten products. So it is asked only for shapes that come
again and again: numbers of rows that are a multiple of ROW_STEP, and what a caller vouches for.

Letters: N rows, D inputs, F outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ROW_STEP = 128
"""Row counts are filled up to a multiple of this, with rows of zeros."""
_ONE_DNN_TYPES = (torch.float32, torch.bfloat16)


def padded(num_rows: int) -> int:
    """Return the next multiple of ROW_STEP."""
    return -(-num_rows // ROW_STEP) * ROW_STEP


def linear(
    x_ND: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    """Return x W' + b, or its positive part, [N, F]; the shapes should be ones that recur."""
    if _has_one_dnn(x_ND):
        after = "relu" if relu else "none"
        return torch.ops.mkldnn._linear_pointwise(x_ND, weight_FD, bias_F, after, [], "")
    product = F.linear(x_ND, weight_FD, bias_F)
    return product.relu_() if relu else product


def linear_plus(x_ND: Tensor, weight_FD: Tensor, bias_F: Tensor | None, other_NF: Tensor) -> Tensor:
    """Return x W' + b + other, [N, F], in the precision of `other`."""
    if _has_one_dnn(x_ND) and x_ND.dtype == other_NF.dtype:
        return torch.ops.mkldnn._linear_pointwise.binary(x_ND, other_NF, weight_FD, bias_F, "add")
    return linear(x_ND, weight_FD, bias_F) + other_NF


def _has_one_dnn(x: Tensor) -> bool:
    return x.dtype in _ONE_DNN_TYPES and bool(torch.backends.mkldnn.enabled)
