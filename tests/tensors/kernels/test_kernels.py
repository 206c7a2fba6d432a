"""Every kernel against dequantize-and-multiply, for every format."""

import pytest
import torch

from mpq.schemes import parse_scheme
from mpq.tensors.kernels import bags, choose, stored
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named

INTEGERS = ("int1-g32", "ternary", "int2-asym-g4", "int3", "int4-g32", "int4-asym-g32", "int5-g16", "int6-asym", "int8", "int8-asym-g64")
OTHERS = ("nf4-g32", "fp4-e2m1", "mxfp4", "fp8-e4m3", "bf16", "fp16")
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
    codes, dense = bags.bags_of(as_stored(quantized)), quantized.dequantize()
    wanted = torch.tensor([0, shape[0] - 1, 2, 2])
    assert torch.equal(bags.dequantize(codes), dense)
    assert torch.equal(bags.weight_of(codes).dequantize(), dense)
    assert torch.equal(bags.rows_of(codes, wanted), dense[wanted])
    for samples in (0, 1, 2, 3, 40):
        x = torch.randn(samples, shape[1])
        expected = x @ dense.t()
        assert bags.few_rows(x, codes, samples).shape == expected.shape if samples else True
        assert samples == 0 or close(bags.few_rows(x, codes, samples), expected)
        assert samples == 0 or close(bags.many_rows(x, codes), expected)
        assert choose.product(x, codes).shape == expected.shape


@needs_bags
def test_a_table_takes_little_more_than_its_codes() -> None:
    quantized = weight("int4-g32", (1024, 1024))
    codes = bags.bags_of(as_stored(quantized))
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
    found, expected = choose.product(x, bags.bags_of(as_stored(quantized))), x.float() @ quantized.dequantize().t()
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() <= torch.finfo(dtype).eps * 8 * expected.abs().max()


@needs_bags
def test_the_kernel_goes_by_format_and_rows() -> None:
    scheme = parse_scheme("int5")
    assert choose.kernel_for(scheme, "bags", 1).name == "bags8"
    assert choose.kernel_for(scheme, "bags", 1000).name == "blocks"
    assert choose.kernel_for(parse_scheme("nf4"), choose.layout_for(parse_scheme("nf4"), 2), 1).name == "rows"
    assert choose.layout_for(scheme, 2, "cuda") == "stored"
