import pytest
import torch
from torch import Tensor

from mpq.errors import NumericsError
from mpq.formats.scheme import parse_scheme
from mpq.tensors.fp16_range import fits_range, lost_rows
from mpq.tensors.quantizers.base import Statistics
from mpq.tensors.quantizers.registry import quantizer_named


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


@pytest.mark.parametrize("scheme", ["int1", "int4", "int4-asym", "int4-g32-s8", "int8", "nl4-g32-s8", "nf4", "fp8-e4m3", "fp16"])
def test_rows_that_are_too_small_are_counted_although_the_matrix_fits(scheme: str) -> None:
    some = weights()
    some[:3] *= 1e-16
    some[3] = 0
    assert fits_range(some, parse_scheme(scheme))
    assert lost_rows(some, parse_scheme(scheme)) == 3
    assert lost_rows(weights(), parse_scheme(scheme)) == 0


@pytest.mark.parametrize("scheme", ["bf16", "fp32", "mxfp4"])
def test_formats_with_the_range_of_float32_lose_no_row(scheme: str) -> None:
    some = weights()
    some[:3] *= 1e-16
    assert lost_rows(some, parse_scheme(scheme)) == 0


INPUTS = torch.randn(256, 64, generator=torch.Generator().manual_seed(1))
STATISTICS = Statistics(INPUTS.T @ INPUTS / 256, 256)
SCHEMES = "int1 ternary int2-g16-s8 int4 int4-g32 int4-asym int4-g32-s8 nl4-g32-s8 int8 int8-asym-g32 nf4 fp8-e4m3 fp8-e5m2 mxfp4 fp16 bf16"


@pytest.mark.parametrize("factor", [2.0**20, 2.0**13, 2.0**-13, 2.0**-27])  # 1e6, 8e3, 1e-4, 1e-8
@pytest.mark.parametrize("name", ["rtn", "mse", "hqq", "act", "gptq", "descent"])
def test_whatever_fits_keeps_the_error_of_ordinary_weights_under_every_quantizer(name: str, factor: float) -> None:
    quantizer, ordinary = quantizer_named(name), weights()
    for scheme in map(parse_scheme, SCHEMES.split()):
        statistics = STATISTICS if quantizer.needs_statistics else None
        expected = float((quantizer.quantize(ordinary, scheme, statistics).dequantize() - ordinary).norm())
        if fits_range(ordinary * factor, scheme):
            found = quantizer.quantize(ordinary * factor, scheme, statistics).dequantize()
            allowed = max(2.1 * expected, 2.0**-10 * float(ordinary.norm()) if str(scheme) == "fp16" else 0.0)  # up to the loss of bf16
            assert float((found / factor - ordinary).norm()) <= allowed
        elif factor == 2.0**20 and not scheme.is_float:
            with pytest.raises(NumericsError, match="does not fit fp16"):
                quantizer.quantize(ordinary * factor, scheme, statistics)
