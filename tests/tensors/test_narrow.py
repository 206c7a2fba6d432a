import math

import pytest
import torch

from mpq.errors import NumericsError
from mpq.tensors.narrow import narrow_dtype, narrowed, overflow


@pytest.mark.parametrize(
    ("dtype", "wanted", "expected"),
    [
        (torch.float32, "bf16", torch.bfloat16),
        (torch.float32, "fp16", torch.float16),
        (torch.float64, "fp32", torch.float32),
        (torch.float32, "fp32", torch.float32),
        (torch.bfloat16, "fp16", torch.bfloat16),
        (torch.bfloat16, "fp32", torch.bfloat16),
        (torch.float8_e5m2, "bf16", torch.float8_e5m2),
        (torch.int64, "bf16", torch.int64),
        (torch.bool, "bf16", torch.bool),
        (torch.complex64, "bf16", torch.complex64),
        (torch.float32, None, torch.float32),
    ],
)
def test_only_floating_point_tensors_that_become_smaller_change(dtype: torch.dtype, wanted: str | None, expected: torch.dtype) -> None:
    assert narrow_dtype(dtype, wanted) == expected
    assert narrowed(torch.ones(3).to(dtype), wanted, "x").dtype == expected


def test_values_are_rounded_to_the_nearest() -> None:
    values = torch.tensor([1.0, 1 + 2**-9, 3.14159])
    assert torch.equal(narrowed(values, "bf16", "x"), values.bfloat16())


@pytest.mark.parametrize(("value", "fits"), [(65504.0, True), (65519.0, True), (65520.0, False), (-7e4, False)])
def test_a_value_beyond_the_range_is_refused_with_its_tensor(value: float, fits: bool) -> None:
    values = torch.tensor([0.5, value, math.inf, -math.inf, math.nan])
    if fits:
        assert torch.equal(narrowed(values, "fp16", "x")[:2], values[:2].half())
        return
    assert overflow(values, "fp16") == value
    with pytest.raises(
        NumericsError, match=r"^'norm.weight' holds -?[67].*e\+04, and fp16 ends at 6.55e\+04: use --rest bf16, which reaches"
    ):
        narrowed(values, "fp16", "norm.weight")


def test_the_smallest_number_of_fp32_is_beyond_bf16() -> None:
    lowest = torch.full((2,), torch.finfo(torch.float32).min)
    with pytest.raises(NumericsError, match=r"bf16 ends at 3.39e\+38: use no --rest$"):
        narrowed(lowest, "bf16", "mask")


def test_infinity_and_nothing_are_kept() -> None:
    assert overflow(torch.full((3,), -math.inf), "fp16") is None
    assert overflow(torch.zeros(0), "fp16") is None
    assert overflow(torch.full((3,), 70000), "fp16") is None
