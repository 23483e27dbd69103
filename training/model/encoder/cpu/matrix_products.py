"""Matrix products of the encoder's layers, for CPUs.

PyTorch multiplies float32 matrices with MKL, which does not use the widest vector instructions of
processors that are not Intel's. oneDNN uses them, and it adds a bias or another matrix while the
product is still in a register. It comes with PyTorch too: `torch.ops.mkldnn` are the operations
that compiled code calls. oneDNN builds a kernel for every new shape, however, which takes as long
as some ten products. So callers bring few different shapes: numbers of rows that are multiples of
ROW_STEP, or shapes that are bounded otherwise.

Letters: N rows, D inputs, F outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ROW_STEP = 128
"""Numbers of rows are filled up to a multiple of this."""


def padded(num_rows: int) -> int:
    """Return the smallest multiple of ROW_STEP that is not below num_rows."""
    return -(-num_rows // ROW_STEP) * ROW_STEP


def linear(x_ND: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """Return x W' + b, [N, F]."""
    if has_one_dnn(x_ND.dtype):
        return torch.ops.mkldnn._linear_pointwise(x_ND, weight_FD, bias_F, "none", [], "")
    return F.linear(x_ND, weight_FD, bias_F)


def linear_plus(x_ND: Tensor, weight_FD: Tensor, bias_F: Tensor | None, other_NF: Tensor) -> Tensor:
    """Return x W' + b + other, [N, F], in the precision of `other`."""
    if has_one_dnn(x_ND.dtype) and x_ND.dtype == other_NF.dtype:
        return torch.ops.mkldnn._linear_pointwise.binary(x_ND, other_NF, weight_FD, bias_F, "add")
    return linear(x_ND, weight_FD, bias_F) + other_NF


def has_one_dnn(dtype: torch.dtype) -> bool:
    """Return whether oneDNN multiplies matrices of that type on this machine."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32
