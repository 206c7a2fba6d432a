import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpq.formats.registry import names
from mpq.formats.scheme import parse_scheme
from mpq.tensors.levels import from_codes, from_exponents, levels_of, nearest_level, power_of_two, to_codes, to_exponents
from mpq.tensors.packing import pack_codes, unpack_codes
from mpq.tensors.quantizers.mse import WeightError
from mpq.tensors.quantizers.rtn import RoundToNearest

FORMATS = names("levels")


@pytest.mark.parametrize("name", FORMATS)
def test_every_level_has_a_code_of_the_formats_bits_and_comes_back(name: str) -> None:
    scheme = parse_scheme(name)
    ascending = levels_of(name).ascending
    codes = to_codes(ascending, scheme)
    assert int(codes.max()) < 2**scheme.bits
    assert len(set(codes.tolist())) == len(ascending)
    assert torch.equal(from_codes(codes, scheme), ascending)


@pytest.mark.parametrize(
    ("name", "count"), [("int1", 2), ("ternary", 3), ("nf4", 16), ("fp4-e2m1", 15), ("fp6-e2m3", 63), ("fp8-e4m3", 253), ("fp8-e5m2", 247)]
)
def test_formats_have_as_many_distinct_levels_as_their_definition(name: str, count: int) -> None:
    assert len(levels_of(name).ascending) == count


@pytest.mark.parametrize("name", FORMATS)
def test_the_nearest_level_is_the_nearest(name: str) -> None:
    values = torch.randn(200, generator=torch.Generator().manual_seed(0)) * 2
    ascending = levels_of(name).ascending
    expected = (values[:, None] - ascending).abs().amin(1)
    assert torch.equal((nearest_level(values, parse_scheme(name)) - values).abs(), expected)


@pytest.mark.parametrize(("name", "dtype", "power"), [("fp8-e4m3", torch.float8_e4m3fn, 8), ("fp8-e5m2", torch.float8_e5m2, 15)])
def test_fp8_codes_are_the_bit_patterns_of_torch(name: str, dtype: torch.dtype, power: int) -> None:
    levels = torch.tensor([1.0, -0.25, 1.5, 0.0]) * 2.0**-power
    assert torch.equal(to_codes(levels, parse_scheme(name)), (levels * 2.0**power).to(dtype).view(torch.uint8))


def test_fp4_codes_are_sign_exponent_and_mantissa() -> None:
    assert to_codes(torch.tensor([0.0, 0.5, 6.0, -0.5, -6.0]), parse_scheme("fp4-e2m1")).tolist() == [0, 1, 7, 9, 15]


def test_fp6_codes_are_sign_exponent_and_mantissa() -> None:
    levels = torch.tensor([0.0, 0.125, 1.0, 2.25, 7.5, -0.125, -7.5])
    assert to_codes(levels, parse_scheme("fp6-e2m3")).tolist() == [0, 1, 8, 17, 31, 33, 63]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_trits_come_back_from_five_to_a_byte(trits: list[int]) -> None:
    codes = torch.tensor(trits, dtype=torch.uint8)
    packed = pack_codes(codes, parse_scheme("ternary").element)
    assert len(packed) == math.ceil(len(trits) / 5)
    assert torch.equal(unpack_codes(packed, parse_scheme("ternary").element, len(trits)), codes)


def test_exponents_hold_powers_of_two() -> None:
    scales = torch.tensor([2.0**-60, 0.25, 1.0, 2.0**60])
    assert to_exponents(scales).tolist() == [67, 125, 127, 187]
    assert torch.equal(from_exponents(to_exponents(scales)), scales)


def test_the_nearest_power_of_two_is_the_nearest_by_difference() -> None:
    assert power_of_two(torch.tensor([1.0, 1.49, 1.51, 3.1, -0.3, 0.0])).tolist() == [1, 1, 2, 4, 0.25, 1]


def test_mxfp4_rounds_as_the_specification_has_it() -> None:
    weight = RoundToNearest().quantize(torch.tensor([[0.7, -3.0, 7.9, 0.0]]), parse_scheme("mxfp4"))
    assert weight.scales is not None
    assert from_exponents(weight.scales).tolist() == [[1.0]]
    assert weight.dequantize().tolist() == [[0.5, -3.0, 6.0, 0.0]]


@pytest.mark.parametrize("name", ["int1", "ternary", "nf4", "fp4-e2m1", "fp6-e2m3", "mxfp4"])
def test_searched_scales_lose_less_than_plain_ones(name: str) -> None:
    matrix = torch.randn(16, 70, generator=torch.Generator().manual_seed(1))
    plain, searched = (kind().quantize(matrix, parse_scheme(name)).dequantize() - matrix for kind in (RoundToNearest, WeightError))
    assert searched.square().sum() <= plain.square().sum() * (1 + 1e-4)


def test_a_binary_scale_is_the_mean_magnitude_also_in_a_short_group() -> None:
    matrix = torch.tensor([[1.0, -3.0, 2.0]])
    weight = WeightError().quantize(matrix, parse_scheme("int1-g2"))
    assert weight.dequantize().tolist() == [[2.0, -2.0, 2.0]]
