import pytest
import torch
from torch import Tensor

from mpq.formats.scheme import parse_scheme
from mpq.tensors.fp16_range import fits_range


def weights(largest: float = 1.0) -> Tensor:
    matrix = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    return matrix * (largest / float(matrix.abs().max()))


@pytest.mark.parametrize(
    ("scheme", "smallest"),
    [
        ("int1", 1e-6),
        ("ternary", 1e-6),
        ("int2", 1e-6),
        ("int4", 1e-5),
        ("int4-g32", 1e-5),
        ("int4-asym", 1e-5),
        ("int4-g32-s8", 1e-4),
        ("nl4-g32-s8", 1e-4),
        ("int8", 1e-3),
        ("nf4", 1e-6),
        ("fp8-e4m3", 1e-3),
        ("mxfp4", 1e-15),
        ("fp16", 1e-3),
    ],
)
def test_a_scheme_fits_ordinary_weights_and_neither_tiny_nor_huge_ones(scheme: str, smallest: float) -> None:
    assert all(fits_range(weights(largest), parse_scheme(scheme)) for largest in (smallest, 1e-1, 1.0, 1e3))
    assert not fits_range(weights(smallest * 1e-4), parse_scheme(scheme))
    assert not fits_range(weights(1e-25), parse_scheme(scheme))
    assert not fits_range(weights(1e9), parse_scheme(scheme))


@pytest.mark.parametrize("scheme", ["bf16", "fp32"])
def test_formats_with_the_range_of_float32_fit_all(scheme: str) -> None:
    assert all(fits_range(weights(largest), parse_scheme(scheme)) for largest in (1e-30, 1.0, 1e30))


@pytest.mark.parametrize("scheme", ["int4", "int8-g32", "nf4", "fp16"])
def test_zeros_and_a_few_dead_rows_fit(scheme: str) -> None:
    assert fits_range(torch.zeros(4, 64), parse_scheme(scheme))
    dead = weights()
    dead[:8] *= 1e-9
    assert fits_range(dead, parse_scheme(scheme))
