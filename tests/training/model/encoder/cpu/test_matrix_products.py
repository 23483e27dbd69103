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
    expected = F.linear(x.double(), weight.double(), bias.double() if has_bias else None)
    found = linear(x, weight, bias if has_bias else None)
    assert found.dtype == dtype
    assert_near(found, expected, dtype)


@pytest.mark.parametrize("of_other", [None, torch.float32])
def test_another_matrix_is_added_and_stays(dtype: torch.dtype, of_other: torch.dtype) -> None:
    torch.manual_seed(2)
    other_dtype = dtype if dtype == torch.float64 else of_other or dtype
    x, weight, bias = (randn(*s, dtype=dtype) for s in ((ROW_STEP, 32), (96, 32), (96,)))
    other = randn(ROW_STEP, 96, dtype=other_dtype)
    before = other.clone()
    expected = F.linear(x.double(), weight.double(), bias.double()) + other.double()
    found = linear_plus(x, weight, bias, other)
    assert found.dtype == other_dtype
    assert_near(found, expected, dtype)
    assert torch.equal(other, before)


def test_transposed_operands(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    x, weight = randn(100, 100, dtype=dtype), randn(100, 768, dtype=dtype)
    other = randn(100, 768, dtype=dtype)
    expected = x.T.double() @ weight.double()
    assert_near(linear(x.T, weight.T), expected, dtype)
    assert_near(linear_plus(x.T, weight.T, None, other), expected + other, dtype)


def test_a_processor_without_bfloat16_is_not_asked_for_it(monkeypatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not has_one_dnn(torch.bfloat16)


def test_rows_are_filled_up_to_the_next_step() -> None:
    sizes = [0, 1, ROW_STEP, ROW_STEP + 1]
    assert [padded(size) for size in sizes] == [0, ROW_STEP, ROW_STEP, 2 * ROW_STEP]
