import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq.errors import FormatError
from mpq.formats.matrix import Matrix
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.tensors.common_rows import to_bits
from mpq.tensors.quantized import QuantizedWeight, are_parts, spread, unpack_weight
from mpq.tensors.quantizers.registry import quantizer_named
from mpq.tensors.quantizers.rtn import RoundToNearest
from tests.formats.test_scheme import schemes


def random_weight(scheme: Scheme, rows: int, columns: int, seed: int) -> QuantizedWeight:
    generator = torch.Generator().manual_seed(seed)
    return RoundToNearest().quantize(torch.randn(rows, columns, generator=generator), scheme)


@settings(deadline=None)
@given(schemes, st.integers(1, 6), st.integers(1, 90), st.integers(0, 9))
def test_a_weight_is_unpacked_to_the_same_numbers(scheme: Scheme, rows: int, columns: int, seed: int) -> None:
    weight = random_weight(scheme, rows, columns, seed)
    back = unpack_weight(weight.pack(), scheme, (rows, columns))
    assert torch.equal(back.codes, weight.codes)
    assert torch.equal(back.dequantize(), weight.dequantize())
    assert back.dequantize().shape == (rows, columns)
    assert back.dequantize().dtype == torch.float32


@settings(deadline=None)
@given(schemes.filter(lambda scheme: scheme.is_integer), st.integers(1, 4), st.integers(1, 40), st.integers(0, 9))
def test_a_number_is_its_code_less_the_zero_point_times_its_groups_scale(scheme: Scheme, rows: int, columns: int, seed: int) -> None:
    weight = random_weight(scheme, rows, columns, seed)
    assert weight.scales is not None
    found = weight.dequantize()
    for row in range(rows):
        for column in range(columns):
            group = 0 if scheme.group_size is None else column // scheme.group_size
            zero = 2 ** (scheme.bits - 1) if weight.zero_points is None else int(weight.zero_points[row, group])
            expected = torch.tensor(float(int(weight.codes[row, column]) - zero)) * weight.scales[row, group].float()
            assert found[row, column] == expected


@settings(deadline=None)
@given(schemes, st.integers(2, 6), st.integers(1, 90), st.integers(0, 9))
def test_some_rows_have_the_numbers_that_they_have_in_the_whole(scheme: Scheme, rows: int, columns: int, seed: int) -> None:
    weight = random_weight(scheme, rows, columns, seed)
    part = weight.rows(slice(1, rows))
    assert part.matrix == (rows - 1, columns)
    assert torch.equal(part.dequantize(), weight.dequantize()[1:])


def test_dequantizing_leaves_the_codes_alone() -> None:
    weight = random_weight(parse_scheme("int4-g8"), 3, 20, 0)
    before = weight.codes.clone()
    assert torch.equal(weight.dequantize(), weight.dequantize())
    assert torch.equal(weight.codes, before)


def test_the_last_group_may_be_shorter() -> None:
    scheme = parse_scheme("int4-g4")
    assert spread(torch.tensor([[1.0, 2.0, 3.0]]), scheme, 10).tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 3, 3]]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"codes": torch.zeros(3, dtype=torch.uint8)}, "part 'codes' should have shape [4], found [3]"),
        ({"codes": torch.zeros(4, dtype=torch.uint8)}, "part 'scales' should have shape [2, 1], found None"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(FormatError) as error:
        unpack_weight(parts, parse_scheme("int4"), (2, 4))
    assert str(error.value) == message


@pytest.mark.parametrize("text", ["int4", "int3-asym-g8", "int4-g8-s8", "ternary", "nf4-g8", "mxfp4", "fp16", "bf16", "ec4"])
def test_a_common_row_is_stored_once_and_every_row_is_read_back(text: str) -> None:
    scheme = parse_scheme(text)
    stored = quantizer_named("rtn").quantize(torch.randn(41, 24, generator=torch.Generator().manual_seed(0)), scheme)
    common = torch.zeros(60, dtype=torch.bool)
    common[10:30] = True
    weight = stored.shared(common)
    assert weight.matrix == Matrix(60, 24, 20)
    whole = weight.dequantize()
    assert torch.equal(whole[10:30], stored.dequantize()[-1:].expand(20, -1))
    assert torch.equal(torch.cat([whole[:10], whole[30:]]), stored.dequantize()[:-1])
    parts = weight.pack()
    assert {name: tuple(part.shape) for name, part in parts.items()} == {each.part: each.shape for each in scheme.stored(weight.matrix)}
    assert are_parts(parts, scheme, weight.matrix)
    again = unpack_weight(parts, scheme, weight.matrix)
    assert torch.equal(again.dequantize(), whole)
    assert again.common is not None
    assert torch.equal(again.common, common)
    apart = weight.all_rows()
    assert (apart.matrix, apart.common) == ((60, 24), None)
    assert torch.equal(unpack_weight(apart.pack(), scheme, (60, 24)).dequantize(), whole)


def test_bits_that_mark_another_number_of_rows_are_refused() -> None:
    scheme, matrix = parse_scheme("int4"), Matrix(60, 24, 20)
    weight = quantizer_named("rtn").quantize(torch.randn(41, 24), scheme).shared(torch.arange(60) < 20)
    parts = weight.pack() | {"common_rows": to_bits(torch.arange(60) < 21)}
    assert not are_parts(parts, scheme, matrix)
    with pytest.raises(FormatError, match=r"^part 'common_rows' marks 21 rows, and 20 are alike$"):
        unpack_weight(parts, scheme, matrix)
