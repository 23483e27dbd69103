"""The products that oneDNN makes are those of PyTorch's own."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from training.model.encoder.cpu.matrix_products import (
    ROW_STEP,
    has_one_dnn,
    linear,
    linear_plus,
    padded,
)

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(params=TOLERANCE, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def randn(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape).to(dtype)


def assert_near(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    scale = float(expected.abs().max())
    error = float((found.double() - expected).abs().max())
    assert error <= TOLERANCE[dtype] * scale, f"{error} of {scale}"


@pytest.fixture(params=[True, False], ids=["oneDNN", "without"], autouse=True)
def one_dnn(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.backends.mkldnn.flags(enabled=request.param):
        yield


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("num_rows", [ROW_STEP, 3])
def test_linear(num_rows: int, has_bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x, weight, bias = (randn(*s, dtype=dtype) for s in ((num_rows, 96), (32, 96), (32,)))
    bias = bias if has_bias else None
    expected = F.linear(x.double(), weight.double(), bias.double() if has_bias else None)
    found = linear(x, weight, bias)
    assert found.dtype == dtype
    assert_near(found, expected, dtype)
    assert_near(linear(x.T.contiguous().T, weight.T.contiguous().T, bias), expected, dtype)
    for other_dtype in {dtype, torch.promote_types(dtype, torch.float32)}:  # it is added and stays
        other = randn(num_rows, 32, dtype=other_dtype)
        before = other.clone()
        found = linear_plus(x, weight, bias, other)
        assert found.dtype == other_dtype
        assert_near(found, expected + other.double(), dtype)
        assert torch.equal(other, before)


def test_rows_are_filled_up_and_a_processor_is_asked_for_what_it_has(monkeypatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not has_one_dnn(torch.bfloat16)
    sizes = [0, 1, ROW_STEP, ROW_STEP + 1]
    assert [padded(size) for size in sizes] == [0, ROW_STEP, ROW_STEP, 2 * ROW_STEP]
