import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq.errors import SchemeError
from mpq.formats.registry import formats, names
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.tensors.quantizers.rtn import RoundToNearest

groups = st.integers(2, 70)
integers = st.builds(Scheme, st.sampled_from(names("integers")), st.none() | groups, st.booleans())
integers |= st.builds(Scheme, st.sampled_from(names("integers")), groups, st.booleans(), st.just(True))
fixed = [name for name, found in formats().items() if found.fixed_group is not None]
levels = st.sampled_from([name for name in names("levels") if name not in fixed])
tables = (
    st.builds(Scheme, levels, st.none() | groups)
    | st.builds(Scheme, st.sampled_from(fixed))
    | st.builds(Scheme, levels, groups, st.just(True), st.just(True))
)
schemes = integers | tables | st.builds(Scheme, st.sampled_from(names("floats")))


@given(schemes)
def test_a_scheme_is_read_back_from_its_text(scheme: Scheme) -> None:
    assert parse_scheme(str(scheme)) == scheme


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("int4", Scheme("int4")),
        (" INT4-G128 ", Scheme("int4", 128)),
        ("int8-asym", Scheme("int8", None, False)),
        ("int3-asym-g32", Scheme("int3", 32, False)),
        ("bf16", Scheme("bf16")),
        ("FP8-E4M3-g64", Scheme("fp8-e4m3", 64)),
        ("ternary-g32", Scheme("ternary", 32)),
        ("mxfp4", Scheme("mxfp4", 32)),
        ("int3-asym-g16-s8", Scheme("int3", 16, False, True)),
        ("NL5-g32-s8", Scheme("nl5", 32, small_scales=True)),
    ],
)
def test_texts_are_read_without_regard_to_case_and_spaces(text: str, scheme: Scheme) -> None:
    assert parse_scheme(text) == scheme


@pytest.mark.parametrize(
    "text", ["", "4", "int", "int4-", "int4-g", "int4-g32-asym", "int4 g32", "int4-g-1", "int4-sym", "int4-g16-s6", "int4-s8-g16"]
)
def test_what_does_not_follow_the_grammar_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(SchemeError) as error:
        parse_scheme(text)
    assert str(error.value) == f"'{text}' is not a scheme: write <format>[-asym][-gN][-s8], for example int4, int8-asym, int4-g128, fp16"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "int9",
            f"unknown scheme 'int9': use one of {', '.join(formats())}, integers optionally with -asym, -gN and -s8",
        ),
        ("fp16-g32", "'fp16' is floating point: it takes neither a group size nor a zero point"),
        ("bf16-asym", "'bf16' is floating point: it takes neither a group size nor a zero point"),
        ("nf4-asym", "'nf4' has no zero point: write nf4 without -asym"),
        ("mxfp4-g16", "mxfp4 has groups of 32, not 16: write mxfp4, or fp4-e2m1-g16"),
        ("int4-s8", "'int4-s8' has no groups to save on: 8-bit scales go with groups, for example int4-g16-s8"),
        ("mxfp4-g32-s8", "'mxfp4-s8' has no groups to save on: 8-bit scales go with groups, for example int4-g16-s8"),
        ("int4-g1", "group size 1 is too small: use at least 2, for example int4-g32"),
    ],
)
def test_impossible_schemes_are_refused(text: str, message: str) -> None:
    with pytest.raises(SchemeError) as error:
        parse_scheme(text)
    assert str(error.value) == message


@settings(deadline=None)
@given(schemes, st.integers(1, 9), st.integers(1, 130))
def test_stored_bits_are_those_of_the_packed_parts(scheme: Scheme, rows: int, columns: int) -> None:
    parts = RoundToNearest().quantize(torch.randn(rows, columns), scheme).pack()
    assert {(part, tuple(tensor.shape)) for part, tensor in parts.items()} == {(s.part, s.shape) for s in scheme.stored((rows, columns))}
    assert scheme.stored_bits((rows, columns)) == 8 * sum(tensor.numel() * tensor.element_size() for tensor in parts.values())
    assert [stored.bytes for stored in scheme.stored((rows, columns))] == [t.numel() * t.element_size() for t in parts.values()]


@pytest.mark.parametrize(
    ("text", "effective_bits"),
    [
        ("int4-g128", 4.125),
        ("int4-g32", 4.5),
        ("int4-asym-g32", 4.625),
        ("int8", 8 + 16 / 4096),
        ("mxfp4", 4.25),
        ("nf4-g64", 4.25),
        ("int4-g32-s8", 4.25 + 8 / 4096),
        ("nl5-g16-s8", 5.5 + 8 / 4096),
        ("nl3", 3 + 16 / 4096),
        ("int1-g128", 1.125),
        ("fp6-e2m3-g32", 6.5),
        ("fp6-e2m3-g16-s8", 6.5 + 8 / 4096),
        ("fp16", 16.0),
        ("fp32", 32.0),
    ],
)
def test_effective_bits_count_scales_and_zero_points(text: str, effective_bits: float) -> None:
    assert parse_scheme(text).stored_bits((512, 4096)) / (512 * 4096) == effective_bits


@given(integers, st.integers(1, 300))
def test_groups_cover_a_row_and_the_last_one_is_not_empty(scheme: Scheme, columns: int) -> None:
    size = scheme.group_size or columns
    assert (scheme.groups(columns) - 1) * size < columns <= scheme.groups(columns) * size
    assert scheme.groups(columns) == math.ceil(columns / size)


@pytest.mark.parametrize("text", ["int4-g" + "9" * 5000, "int4-g1234567890", "int4-g\u0664", "int\u0664", "int4-g" + "9" * 10])
def test_a_group_size_of_many_digits_or_of_other_digits_is_no_scheme(text: str) -> None:
    with pytest.raises(SchemeError, match="is not a scheme: write <format>"):
        parse_scheme(text)


def test_a_scheme_may_be_called_by_its_name_its_format_or_its_bits() -> None:
    assert parse_scheme("int4-g32").spellings == {"int4-g32", "int4", "4"}
    assert parse_scheme("bf16").spellings == {"bf16", "16"}
