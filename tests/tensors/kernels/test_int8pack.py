"""torch's int8 matmul on codes of 5 to 8 bits: exact codes and scales, products within bfloat16."""

import pytest
import torch

from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import int8pack
from tests.tensors.kernels.making import as_stored, inputs, some_rows, weight

needs_operator = pytest.mark.skipif(not int8pack.available(), reason="this CPU has no AVX512")


@needs_operator
@pytest.mark.parametrize(("scheme", "shape"), [("int8", (65, 96)), ("int8", (1030, 1040)), ("int5-g96", (7, 48))])
def test_nothing_is_lost_and_products_are_within_bfloat16(scheme: str, shape: tuple[int, int]) -> None:
    quantized = weight(scheme, shape)
    assert int8pack.fits(quantized.scheme, shape)
    codes, dense = int8pack.packed_of(as_stored(quantized)), quantized.dequantize()
    assert torch.equal(int8pack.dequantize(codes), dense)
    assert torch.equal(int8pack.rows_of(codes, some_rows(shape[0])), dense[some_rows(shape[0])])
    back = int8pack.weight_of(codes).pack()
    assert all(torch.equal(back[name], part) for name, part in quantized.pack().items())
    for samples in (1, 2, 5, 100):
        x = inputs(samples, shape[1]).bfloat16()
        exact = x.float() @ dense.t()
        tolerance = torch.finfo(torch.bfloat16).eps * exact.abs().max()
        assert (int8pack.many_rows(x, codes) - exact).abs().max() <= tolerance
        assert (int8pack.few_rows(x, codes) - exact).abs().max() <= tolerance


def test_float32_inputs_are_multiplied_with_the_scales_as_stored() -> None:
    quantized, x = weight("int8", (65, 96)), inputs(3, 96)
    torch.testing.assert_close(int8pack.many_rows(x, int8pack.packed_of(as_stored(quantized))), x @ quantized.dequantize().t())


def test_codes_are_kept_as_signed_levels() -> None:
    for scheme, middle in (("int8", 128), ("int5", 16)):
        quantized = weight(scheme, (3, 16))
        assert torch.equal(int8pack.packed_of(as_stored(quantized)).codes.int(), quantized.codes.int() - middle)


def test_one_symmetric_scale_per_row_of_whole_runs_of_16_columns_fits() -> None:
    assert int8pack.fits(parse_scheme("int8"), (5, 96))
    assert not int8pack.fits(parse_scheme("int8"), (5, 100))  # reads beyond the row
    assert [int8pack.fits(parse_scheme(text), (64, 96)) for text in ("int8-g32", "int8-asym", "fp8-e4m3", "int4")] == [False] * 4
    assert int8pack.fits(parse_scheme("int8-g96"), (5, 96))  # the group is the row
