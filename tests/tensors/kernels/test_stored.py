"""Codes as an artifact stores them, against dequantize-and-multiply, for every kind of format."""

import pytest
import torch

from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import stored
from tests.tensors.kernels.making import INTEGERS, LARGE, OTHERS, SMALL, as_stored, close, inputs, some_rows, weight

IN_BLOCKS = ("ternary", "int3", "int6-asym", "int3-g16-s8", "nf4-g32", "bf16")  # one for each way to find a row's first byte


@pytest.mark.parametrize(
    ("scheme", "shape"), [(scheme, shape) for scheme in INTEGERS + OTHERS for shape in SMALL] + [(scheme, LARGE) for scheme in IN_BLOCKS]
)
def test_codes_dequantize_to_the_bit_and_multiply(scheme: str, shape: tuple[int, int]) -> None:
    quantized = weight(scheme, shape)
    codes, dense = as_stored(quantized), quantized.dequantize()
    assert torch.equal(stored.dequantize(codes), dense)
    assert torch.equal(stored.rows_of(codes, some_rows(shape[0])), dense[some_rows(shape[0])])
    x = inputs(3, shape[1])
    assert close(stored.product(x, codes), x @ dense.t())


@pytest.mark.parametrize("scheme", ["int4-g32", "bf16"])
def test_a_product_has_the_dtype_of_its_input(scheme: str) -> None:
    codes = as_stored(weight(scheme, (5, 37)))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = inputs(2, 37).to(dtype)
        assert torch.equal(stored.product(x, codes), x @ stored.dequantize(codes).to(dtype).t())


@pytest.mark.parametrize("scheme", ["ternary", "int3", "int5-g16", "int6-asym", "nl3", "fp16"])
def test_a_row_step_ends_at_a_whole_byte_whatever_the_columns(scheme: str) -> None:
    parsed = parse_scheme(scheme)
    step = stored.row_step(parsed)
    assert step % 40 == 0
    if not parsed.is_float:
        for columns in (1, 7, 37):
            assert parsed.element.code_bytes(2 * step * columns) == 2 * parsed.element.code_bytes(step * columns)


@pytest.mark.parametrize("scheme", ["ternary", "int3", "int6-asym-g4", "nl3-g16-s8", "bf16"])
def test_pieces_of_rows_make_up_the_weight_with_a_short_last_one(scheme: str) -> None:
    quantized = weight(scheme, (93, 7))
    pieces = list(stored.weights_by_rows(as_stored(quantized), 40))
    assert [piece.matrix for piece in pieces] == [(40, 7), (40, 7), (13, 7)]
    assert torch.equal(torch.cat([piece.dequantize() for piece in pieces]), quantized.dequantize())
    (whole,) = stored.weights_by_rows(as_stored(quantized), 93)
    assert torch.equal(whole.codes, quantized.codes)


def test_scales_of_8_bits_are_held_as_fp16() -> None:
    quantized = weight("int4-g16-s8", (5, 37))
    assert quantized.pack()["scales"].dtype == torch.uint8
    scales = as_stored(quantized).scales
    assert scales is not None
    assert scales.dtype == torch.float16
    assert quantized.scales is not None
    assert torch.equal(scales, quantized.scales)


def test_no_rows_are_no_rows() -> None:
    for scheme in ("int4-asym-g4", "ternary", "bf16"):
        assert stored.rows_of(as_stored(weight(scheme, (5, 37))), torch.tensor([], dtype=torch.int64)).shape == (0, 37)
