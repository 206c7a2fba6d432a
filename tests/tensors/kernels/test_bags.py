"""Products by embedding bags, against dequantize-and-multiply, and the table that they need."""

import pytest
import torch

from mpq.formats.packed_layout import packed_bytes
from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import bags
from mpq.tensors.kernels.codes import Codes
from tests.tensors.kernels.making import INTEGERS, LARGE, OTHERS, SMALL, as_stored, close, inputs, needs_bags, some_rows, weight

pytestmark = needs_bags
IN_BLOCKS = ("int1-g32", "int2-asym-g4", "int3", "int8-asym-g64")


def table(scheme: str, shape: tuple[int, int]) -> Codes:
    return bags.packed_of(as_stored(weight(scheme, shape)))


@pytest.mark.parametrize(
    ("scheme", "shape"), [(scheme, shape) for scheme in INTEGERS for shape in SMALL] + [(scheme, LARGE) for scheme in IN_BLOCKS]
)
def test_tables_dequantize_to_the_bit_and_multiply(scheme: str, shape: tuple[int, int]) -> None:
    codes, dense = table(scheme, shape), weight(scheme, shape).dequantize()
    assert torch.equal(bags.dequantize(codes), dense)
    assert torch.equal(bags.weight_of(codes).dequantize(), dense)
    assert torch.equal(bags.rows_of(codes, some_rows(shape[0])), dense[some_rows(shape[0])])
    for samples in (1, 2, 3, 40):
        x = inputs(samples, shape[1])
        assert close(bags.few_rows(x, codes), x @ dense.t())
        assert close(bags.many_rows(x, codes), x @ dense.t())


@pytest.mark.parametrize("scheme", ["int2-asym-g4", "int3", "int8"])
def test_the_codes_of_a_table_are_those_stored(scheme: str) -> None:
    quantized = weight(scheme, (5, 37))
    found = bags.weight_of(table(scheme, (5, 37)))
    assert torch.equal(found.codes, quantized.codes)
    assert found.scales is not None
    assert quantized.scales is not None
    assert torch.equal(found.scales, quantized.scales)
    assert (found.zero_points is None) == (quantized.zero_points is None)


def test_a_line_is_a_column_of_codes_lowest_first_then_slope_and_offset() -> None:
    quantized = weight("int4", (2, 3))
    line = table("int4", (2, 3)).codes
    first, second = quantized.codes.tolist()
    assert line.shape == (3, 1 + 4)
    assert line[:, 0].tolist() == [low + 16 * high for low, high in zip(first, second, strict=True)]
    assert line[0, 1:].clone().view(torch.float16).tolist() == [1, -8]


def test_only_one_block_without_padding_and_zero_points_is_simple() -> None:
    assert table("int4", (6, 8)).simple
    assert not table("int4", (5, 8)).simple  # half a byte is padding
    assert table("int8", (5, 8)).simple
    assert not table("int4-asym", (6, 8)).simple
    assert not table("int4", (1100, 1000)).simple


@pytest.mark.parametrize("scheme", ["int2-g32", "int4-asym-g32", "int5", "ternary"])
@pytest.mark.parametrize("shape", [(5, 37), (1100, 1000)])
def test_a_table_takes_the_bytes_that_are_foretold(scheme: str, shape: tuple[int, int]) -> None:
    codes = table(scheme, shape)
    held = [part for part in (codes.codes, codes.scales, codes.zero_points) if part is not None]
    assert sum(part.numel() * part.element_size() for part in held) == packed_bytes(parse_scheme(scheme), shape)


def test_a_table_takes_little_more_than_its_codes() -> None:
    shape = (1024, 1024)
    assert packed_bytes(parse_scheme("int4-g32"), shape) < 1.01 * sum(
        part.numel() * part.element_size() for part in weight("int4-g32", shape).pack().values()
    )


def test_many_samples_are_summed_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, x = table("int4-asym-g32", (64, 96)), inputs(7, 96)
    whole = bags.few_rows(x, codes)
    monkeypatch.setattr(bags, "_SUMS", 64 * 3 * 2)  # two samples of 64 outputs and 3 groups
    assert torch.equal(bags.few_rows(x, codes), whole)


def test_formats_whose_levels_lie_on_a_line_fit() -> None:
    assert all(bags.fits(parse_scheme(scheme)) for scheme in INTEGERS)
    assert not any(bags.fits(parse_scheme(scheme)) for scheme in OTHERS)
