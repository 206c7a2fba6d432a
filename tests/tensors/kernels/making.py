"""Quantized weights for the tests of kernels, and the formats and shapes that all layouts are tried with."""

import pytest
import torch
from torch import Tensor

from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import bags, stored
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named

INTEGERS = (
    "int1-g32",
    "ternary",
    "int2-asym-g4",
    "int3",
    "int4-g32",
    "int4-asym-g32",
    "int5-g16",
    "int6-asym",
    "int8",
    "int8-asym-g64",
    "int3-g16-s8",
)
OTHERS = ("nf4-g32", "nl3", "nl5-g16-s8", "fp4-e2m1", "mxfp4", "fp8-e4m3", "bf16", "fp16")
SMALL = ((5, 37), (64, 96))
LARGE = (1030, 1030)
"""More weights than are dequantized at a time, and than lie in one block; no multiple of a block either way."""

needs_bags = pytest.mark.skipif(not bags.available(), reason="this build of torch has no FBGEMM")


def weight(scheme: str, shape: tuple[int, int]) -> QuantizedWeight:
    """Normal weights, rounded to nearest."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return quantizer_named("rtn").quantize(matrix, parse_scheme(scheme))


def as_stored(quantized: QuantizedWeight) -> Codes:
    return stored.stored_codes(quantized.pack(), quantized.scheme, quantized.matrix)


def inputs(samples: int, columns: int, seed: int = 1) -> Tensor:
    return torch.randn(samples, columns, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether two products differ by the order of their sums only."""
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


def some_rows(rows: int) -> Tensor:
    """The first, the last, one between, and that twice."""
    return torch.tensor([0, rows - 1, rows // 2, rows // 2])
