"""Products of many rows with a weight matrix, with gradients, on every device.

PyTorch multiplies float32 matrices with MKL, which does not use the widest vector instructions of
processors that are not Intel's. oneDNN uses them, and takes less than half the time on such a CPU.
It comes with PyTorch: `torch.ops.mkldnn` are the operations that compiled code calls. They have no
gradients, so these are written here.

Letters: N rows, D inputs, F outputs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ROW_STEP, SMALL_STEP, FEW_ROWS = 128, 32, 1024
"""oneDNN builds a kernel for every new number of rows, which takes as long as some products. So
rows are filled up to a multiple of ROW_STEP, and callers bring at most some ten thousand. FEW_ROWS
and fewer are filled up to a multiple of SMALL_STEP, or most of a product could be filling."""


def linear(
    x: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None, plus: Tensor | None = None
) -> Tensor:
    """Return x W' + b + plus, float [..., F], in the precision of `plus` if there is one.

    Args:
        x: float [..., D].
        weight_FD: float [F, D].
        bias_F: float [F].
        plus: float [..., F].
    """
    has_one_dnn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    is_float32 = x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
    if not (x.is_cpu and has_one_dnn and is_float32 and x.numel()):
        product = F.linear(x, weight_FD, bias_F)
        return product if plus is None else product + plus
    # oneDNN takes a hundred times as long where rows of a matrix have gaps between them
    x_ND, weight_FD = x.flatten(0, -2).contiguous(), weight_FD.contiguous()
    plus_NF = None if plus is None else plus.flatten(0, -2).contiguous()
    return _Linear.apply(x_ND, weight_FD, bias_F, plus_NF).unflatten(0, x.shape[:-1])


class _Linear(torch.autograd.Function):
    """`linear` of float32 rows [N, D] by oneDNN."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_FD: Tensor, bias_F: Tensor | None, plus_NF: Tensor | None
    ) -> Tensor:
        """Return float32 [N, F]."""
        ctx.save_for_backward(x_ND, weight_FD)
        return _product(x_ND, weight_FD, bias_F, plus_NF)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch has no types for it
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the arguments."""
        x_ND, weight_FD = ctx.saved_tensors
        needs_x, _, needs_bias, needs_plus = ctx.needs_input_grad
        to_out_NF = gradients[0].contiguous()
        return (
            _product(to_out_NF, weight_FD.T) if needs_x else None,
            to_out_NF.T @ x_ND,
            to_out_NF.sum(0) if needs_bias else None,
            to_out_NF if needs_plus else None,
        )


def _product(
    x_ND: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None, plus_NF: Tensor | None = None
) -> Tensor:
    num_rows, pointwise = len(x_ND), torch.ops.mkldnn._linear_pointwise
    if missing := -num_rows % (ROW_STEP if num_rows > FEW_ROWS else SMALL_STEP):
        x_ND = F.pad(x_ND, (0, 0, 0, missing))
        plus_NF = None if plus_NF is None else F.pad(plus_NF, (0, 0, 0, missing))
    if plus_NF is None:
        return pointwise(x_ND, weight_FD, bias_F, "none", [], "")[:num_rows]
    return pointwise.binary(x_ND, plus_NF, weight_FD, bias_F, "add")[:num_rows]
