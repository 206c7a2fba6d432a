import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpq.export.abilities import Abilities
from mpq.export.nearest_scheme import closest, widen
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named

BLOCKS = Abilities(bits=(4, 5, 8), asymmetric_bits=(4, 5), group_sizes=(32,), whole_row=False)
ROWS = Abilities(bits=(4, 8), group_sizes=(), floats=("fp16",))


@pytest.mark.parametrize(
    ("scheme", "columns", "abilities", "expected"),
    [
        ("int4-g32", 64, BLOCKS, "int4-g32"),
        ("int4", 64, BLOCKS, "int4-g32"),
        ("int3-g64", 128, BLOCKS, "int4-g32"),
        ("int4-g32-s8", 64, BLOCKS, "int4-g32"),
        ("int4-g16-s8", 64, BLOCKS, "fp16"),
        ("int3-asym-g64-s8", 128, BLOCKS, "int4-g32"),
        ("nl4-g32-s8", 64, BLOCKS, "fp16"),
        ("int6", 64, BLOCKS, "int8-g32"),
        ("int3-asym-g64", 64, BLOCKS, "int4-g32"),
        ("int4-asym", 64, BLOCKS, "int4-asym-g32"),
        ("int5-asym", 64, Abilities(bits=(6, 8)), "int6"),
        ("int8-asym", 64, BLOCKS, "fp16"),
        ("int4-g128", 288, BLOCKS, "int4-g32"),
        ("int4-g48", 96, BLOCKS, "fp16"),
        ("int4-g32", 40, BLOCKS, "fp16"),
        ("fp32", 64, ROWS, None),
        ("fp16", 64, Abilities(bits=(), floats=("fp32",)), "fp32"),
        ("int4-g128", 64, ROWS, "int4"),
        ("int4-g128", 288, Abilities(bits=(4, 8)), "int4-g32"),
        ("int4-g128", 288, Abilities(bits=(4, 8), ragged=True), "int4-g128"),
    ],
)
def test_closest_is_the_cheapest_scheme_that_holds_the_values(
    scheme: str, columns: int, abilities: Abilities, expected: str | None
) -> None:
    found = closest(parse_scheme(scheme), (3, columns), abilities)
    assert (None if found is None else str(found)) == expected


@given(
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    group=st.sampled_from([None, 8, 16, 32, 48, 64, 100]),
    columns=st.sampled_from([32, 64, 96, 100, 128]),
    whole_row=st.booleans(),
    sizes=st.sampled_from([None, (32,), (16, 64), (4,)]),
    ragged=st.booleans(),
    small=st.booleans(),
)
def test_a_replacement_by_integers_changes_no_weight(
    bits: int, symmetric: bool, group: int | None, columns: int, whole_row: bool, sizes: tuple[int, ...] | None, ragged: bool, small: bool
) -> None:
    scheme = Scheme(f"int{bits}", group, symmetric, small and group is not None)
    able = Abilities(bits=(4, 5, 8), asymmetric_bits=(4, 8), group_sizes=sizes, whole_row=whole_row, ragged=ragged)
    found = closest(scheme, (3, columns), able)
    assert found is not None
    matrix = torch.randn(3, columns, generator=torch.Generator().manual_seed(columns))
    weight = quantizer_named("rtn").quantize(matrix, scheme)
    wide = widen(weight, found)
    if found.is_float:
        assert torch.equal(wide.dequantize(), weight.dequantize().half().float())
        return
    assert torch.equal(wide.dequantize(), weight.dequantize())
    assert int(wide.codes.max()) < 2**found.bits
    for part, stored in zip(wide.pack().values(), found.stored((3, columns)), strict=True):
        assert tuple(part.shape) == stored.shape


def test_a_negative_scale_survives() -> None:
    scheme = parse_scheme("int4-g4")
    weight = QuantizedWeight(scheme, (1, 4), torch.tensor([[0, 7, 8, 15]], dtype=torch.uint8), torch.tensor([[-0.5]], dtype=torch.half))
    wide = widen(weight, parse_scheme("int8-g4"))
    assert wide.dequantize().tolist() == [[4.0, 0.5, 0.0, -3.5]]
    assert wide.dequantize().tolist() == weight.dequantize().tolist()


@pytest.mark.parametrize("scheme", ["nf4-g32", "mxfp4", "ternary", "int1", "fp8-e4m3"])
def test_levels_of_a_table_become_16_bits_and_never_integers(scheme: str) -> None:
    able = Abilities(bits=(4, 8), asymmetric_bits=(4, 8), group_sizes=None, whole_row=True, ragged=True)
    found = closest(parse_scheme(scheme), (3, 64), able)
    assert found == Scheme("fp16")
    weight = quantizer_named("rtn").quantize(torch.randn(3, 64, generator=torch.Generator().manual_seed(0)), parse_scheme(scheme))
    torch.testing.assert_close(widen(weight, found).dequantize(), weight.dequantize(), rtol=2**-11, atol=1e-7)
