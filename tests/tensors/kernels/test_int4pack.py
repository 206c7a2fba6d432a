"""torch's int4 matmul on codes of 3 and 4 bits: exact codes and scales, products within bfloat16."""

import pytest
import torch

from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import int4pack
from tests.tensors.kernels.making import as_stored, inputs, some_rows, weight

needs_operator = pytest.mark.skipif(not int4pack.available(), reason="this CPU has no AVX512")


@needs_operator
@pytest.mark.parametrize(
    ("scheme", "shape"),
    [
        ("int4-g32", (64, 96)),
        ("int4-asym-g32", (80, 288)),
        ("int4-g128", (208, 288)),
        ("int4", (1040, 1056)),
        ("int3-asym-g64", (48, 512)),
        ("int3-g96", (32, 192)),
    ],
)
def test_nothing_is_lost_and_products_are_within_bfloat16(scheme: str, shape: tuple[int, int]) -> None:
    quantized = weight(scheme, shape)
    assert int4pack.fits(quantized.scheme, shape)
    codes, dense = int4pack.packed_of(as_stored(quantized)), quantized.dequantize()
    assert torch.equal(int4pack.dequantize(codes), dense)
    assert torch.equal(int4pack.rows_of(codes, some_rows(shape[0])), dense[some_rows(shape[0])])
    back = int4pack.weight_of(codes).pack()
    assert set(back) == set(quantized.pack())
    assert all(torch.equal(back[name], part) for name, part in quantized.pack().items())
    for samples in (1, 2, 5, 100):
        x = inputs(samples, shape[1]).bfloat16()
        exact = x.float() @ dense.t()
        tolerance = torch.finfo(torch.bfloat16).eps * exact.abs().max()
        assert (int4pack.many_rows(x, codes) - exact).abs().max() <= tolerance
        assert (int4pack.few_rows(x, codes) - exact).abs().max() <= tolerance


@needs_operator
def test_float32_inputs_are_multiplied_in_float32() -> None:
    quantized = weight("int4-asym-g32", (80, 96))
    x = inputs(3, 96)
    torch.testing.assert_close(int4pack.many_rows(x, int4pack.packed_of(as_stored(quantized))), x @ quantized.dequantize().t())


@needs_operator
def test_groups_larger_than_the_operator_takes_are_cut_with_the_same_scale() -> None:
    codes = int4pack.packed_of(as_stored(weight("int4", (16, 768))))
    assert codes.scales is not None
    assert codes.scales.shape == (3, 16, 2)  # three groups of 256
    assert torch.equal(codes.scales[0], codes.scales[2])


def test_rows_by_sixteen_and_groups_that_hold_32_columns_fit() -> None:
    fits = int4pack.fits
    assert [fits(parse_scheme("int4-g32"), shape) for shape in ((64, 96), (65, 96), (64, 90))] == [True, False, False]
    assert [fits(parse_scheme(text), (64, 96)) for text in ("int4-g16", "int5-g32", "int2-g32", "nf4-g32")] == [False] * 4
    assert fits(parse_scheme("int3-asym"), (16, 32))
    assert not fits(parse_scheme("int4-g48"), (16, 96))  # 48 is no multiple of 32
