"""Every kernel against dequantize-and-multiply, for every format."""

import pytest
import torch

from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import bags, choose, int4pack, int8pack, stored
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.kernels.narrowed import narrowed, widened
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
SHAPES = ((5, 37), (64, 96), (1030, 1030))
needs_bags = pytest.mark.skipif(not bags.available(), reason="this build of torch has no FBGEMM")


def weight(scheme: str, shape: tuple[int, int]) -> QuantizedWeight:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return quantizer_named("rtn").quantize(matrix, parse_scheme(scheme))


def as_stored(quantized: QuantizedWeight) -> Codes:
    return stored.stored_codes(quantized.pack(), quantized.scheme, quantized.matrix)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scheme", INTEGERS + OTHERS)
def test_stored_codes_dequantize_to_the_bit_and_multiply(scheme: str, shape: tuple[int, int]) -> None:
    quantized = weight(scheme, shape)
    codes, dense = as_stored(quantized), quantized.dequantize()
    wanted = torch.tensor([0, shape[0] - 1, 2, 2])
    assert torch.equal(stored.dequantize(codes), dense)
    assert torch.equal(stored.rows_of(codes, wanted), dense[wanted])
    x = torch.randn(3, shape[1])
    assert close(choose.product(x, codes), x @ dense.t())


@needs_bags
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scheme", INTEGERS)
def test_bags_dequantize_to_the_bit_and_multiply(scheme: str, shape: tuple[int, int]) -> None:
    quantized = weight(scheme, shape)
    codes, dense = bags.packed_of(as_stored(quantized)), quantized.dequantize()
    wanted = torch.tensor([0, shape[0] - 1, 2, 2])
    assert torch.equal(bags.dequantize(codes), dense)
    assert torch.equal(bags.weight_of(codes).dequantize(), dense)
    assert torch.equal(bags.rows_of(codes, wanted), dense[wanted])
    for samples in (0, 1, 2, 3, 40):
        x = torch.randn(samples, shape[1])
        expected = x @ dense.t()
        assert bags.few_rows(x, codes).shape == expected.shape if samples else True
        assert samples == 0 or close(bags.few_rows(x, codes), expected)
        assert samples == 0 or close(bags.many_rows(x, codes), expected)
        assert choose.product(x, codes).shape == expected.shape


@needs_bags
def test_a_table_takes_little_more_than_its_codes() -> None:
    quantized = weight("int4-g32", (1024, 1024))
    codes = bags.packed_of(as_stored(quantized))
    assert codes.scales is not None
    assert codes.codes.numel() + 2 * codes.scales.numel() < 1.01 * sum(
        part.numel() * part.element_size() for part in quantized.pack().values()
    )


@needs_bags
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("samples", [1, 50])
def test_inputs_of_16_bits_keep_their_dtype(dtype: torch.dtype, samples: int) -> None:
    quantized = weight("int4-g32", (64, 96))
    x = torch.randn(samples, 96).to(dtype)
    found, expected = choose.product(x, bags.packed_of(as_stored(quantized))), x.float() @ quantized.dequantize().t()
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() <= torch.finfo(dtype).eps * 8 * expected.abs().max()


PACKS = {"int4pack": int4pack, "int8pack": int8pack}


@pytest.mark.parametrize(
    ("layout", "scheme", "shape"),
    [
        ("int4pack", "int4-g32", (64, 96)),
        ("int4pack", "int4-asym-g32", (80, 288)),
        ("int4pack", "int4-g128", (208, 288)),
        ("int4pack", "int4", (1040, 1056)),
        ("int4pack", "int3-asym-g64", (48, 512)),
        ("int4pack", "int3-g96", (32, 192)),
        ("int8pack", "int8", (65, 96)),
        ("int8pack", "int8", (1030, 1040)),
        ("int8pack", "int5-g96", (7, 48)),
    ],
)
def test_codes_for_the_packed_matmuls_of_torch_lose_nothing(layout: str, scheme: str, shape: tuple[int, int]) -> None:
    pack = PACKS[layout]
    if not pack.available():
        pytest.skip("this CPU has no AVX512")
    quantized = weight(scheme, shape)
    assert pack.fits(quantized.scheme, shape)
    codes, dense = choose.in_layout(as_stored(quantized), layout), quantized.dequantize()
    wanted = torch.tensor([0, shape[0] - 1, 2, 2])
    assert torch.equal(pack.dequantize(codes), dense)
    assert torch.equal(pack.weight_of(codes).dequantize(), dense)
    assert torch.equal(pack.rows_of(codes, wanted), dense[wanted])
    back = (choose.in_layout(codes, "stored").codes, choose.in_layout(codes, "stored").scales)
    assert all(torch.equal(found, part) for found, part in zip(back, quantized.pack().values(), strict=False) if found is not None)
    for samples in (1, 2, 5, 100):
        x = torch.randn(samples, shape[1]).bfloat16()
        exact = x.float() @ dense.t()
        tolerance = torch.finfo(torch.bfloat16).eps * exact.abs().max()
        assert (pack.many_rows(x, codes) - exact).abs().max() <= tolerance
        assert (pack.few_rows(x, codes) - exact).abs().max() <= tolerance


def test_scales_come_back_from_bfloat16() -> None:
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    every = every[every.isfinite()]
    near, steps = narrowed(every)
    assert torch.equal(near, every.bfloat16())
    assert int(steps.max()) < 16
    assert torch.equal(widened(near, steps).view(torch.int16), every.view(torch.int16))


def test_weights_that_the_packed_matmuls_do_not_take() -> None:
    fits = int4pack.fits
    assert [fits(parse_scheme("int4-g32"), shape) for shape in ((64, 96), (65, 96), (64, 90))] == [True, False, False]
    assert [fits(parse_scheme(text), (64, 96)) for text in ("int4-g16", "int5-g32", "int2-g32", "nf4-g32")] == [False] * 4
    assert int8pack.fits(parse_scheme("int8"), (5, 96))
    assert not int8pack.fits(parse_scheme("int8"), (5, 100))  # reads beyond the row
    assert [int8pack.fits(parse_scheme(text), (64, 96)) for text in ("int8-g32", "int8-asym", "fp8-e4m3", "int4")] == [False] * 4


@needs_bags
def test_the_kernel_goes_by_format_dtype_and_rows() -> None:
    scheme, matrix, bf16 = parse_scheme("int5"), (64, 96), torch.bfloat16
    assert choose.kernel_for(scheme, "bags", 1).name == "bags8"
    assert choose.kernel_for(scheme, "bags", 1000).name == "blocks"
    assert choose.kernel_for(scheme, "int8pack", 8, bf16).name == "int8pack"
    assert choose.kernel_for(scheme, "int8pack", 1000, bf16).name == "blocks"
    assert choose.kernel_for(parse_scheme("nf4"), choose.layout_for(parse_scheme("nf4"), matrix, 2, torch.float32), 1).name == "rows"
    assert choose.layout_for(scheme, matrix, 2, torch.float32, "cuda") == "stored"
    assert choose.layout_for(scheme, matrix, 2, torch.float32) == "bags"
    assert choose.layout_for(scheme, matrix, 2, bf16) == ("int8pack" if int8pack.available() else "bags")
    assert choose.layout_for(scheme, matrix, 4, bf16) == "bags"
