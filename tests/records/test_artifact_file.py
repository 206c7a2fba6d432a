import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpq.errors import FormatError
from mpq.formats.scheme import parse_scheme
from mpq.reading.documents import Document
from mpq.reading.validate import validated
from mpq.records.artifact_file import IndexFile, TensorFacts, check_parts, check_tensors

DOCUMENT = Document({}, "a.safetensors, header", remedy="run `mpq apply` again")


def facts(dtype: str, shape: list[int], first: int, end: int) -> TensorFacts:
    return TensorFacts(dtype, shape, [first, end])


def refused(tensors: dict[str, TensorFacts]) -> str:
    with pytest.raises(FormatError) as caught:
        check_tensors(DOCUMENT, tensors)
    return str(caught.value)


@given(st.lists(st.tuples(st.sampled_from([("U8", 1), ("F16", 2), ("F32", 4), ("I64", 8)]), st.lists(st.integers(0, 4), max_size=3))))
def test_tensors_end_to_end_fill_as_many_bytes_as_they_say_together(made: list[tuple[tuple[str, int], list[int]]]) -> None:
    tensors, end = {}, 0
    for number, ((dtype, width), shape) in enumerate(made):
        size = width * math.prod(shape)
        tensors[str(number)] = facts(dtype, shape, end, end + size)
        end += size
    assert check_tensors(DOCUMENT, dict(reversed(tensors.items()))) == end


def test_dtypes_that_mpq_does_not_know_have_any_size() -> None:
    assert check_tensors(DOCUMENT, {"a": facts("F4", [3], 0, 2), "b": facts("U8", [1], 2, 3)}) == 3


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"a": facts("U8", [4], 1, 5)}, "tensor 'a', U8 [4], is at [1, 5], where it cannot be"),  # a gap at the start
        ({"a": facts("U8", [4], 0, 4), "b": facts("U8", [4], 5, 9)}, "tensor 'b', U8 [4], is at [5, 9], where it cannot be"),
        ({"a": facts("U8", [4], 0, 4), "b": facts("U8", [4], 3, 7)}, "tensor 'b', U8 [4], is at [3, 7], where it cannot be"),
        ({"a": facts("F16", [4], 0, 4)}, "tensor 'a', F16 [4], is at [0, 4], where it cannot be"),
        ({"a": facts("F4", [4], 0, 4), "b": facts("F4", [0], 4, 2)}, "tensor 'b', F4 [0], is at [4, 2], where it cannot be"),
    ],
)
def test_gaps_overlaps_and_wrong_sizes_are_refused(tensors: dict[str, TensorFacts], reason: str) -> None:
    assert refused(tensors) == f"a.safetensors, header: {reason}; run `mpq apply` again"


def test_a_long_name_does_not_make_a_long_message() -> None:
    assert len(refused({"a" * 4000: facts("U8", [4], 1, 5)})) < 300


INT4 = parse_scheme("int4").stored((2, 3))


def test_a_layer_with_the_tensors_of_its_scheme_passes() -> None:
    check_parts(
        DOCUMENT, "a", INT4, {"a.codes": facts("U8", [3], 0, 3), "a.scales": facts("F16", [2, 1], 3, 7), "other": facts("U8", [], 7, 8)}
    )


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"a.codes": facts("U8", [3], 0, 3)}, "tensor 'a.scales' is not in the file, its scheme needs F16 [2, 1]"),
        ({"a.codes": facts("U8", [4], 0, 4)}, "tensor 'a.codes' is U8 [4], its scheme needs U8 [3]"),
        ({"a.codes": facts("I8", [3], 0, 3)}, "tensor 'a.codes' is I8 [3], its scheme needs U8 [3]"),
        ({}, "tensor 'a.codes' is not in the file, its scheme needs U8 [3]"),
    ],
)
def test_a_part_that_is_missing_or_of_another_shape_or_dtype_is_refused(tensors: dict[str, TensorFacts], reason: str) -> None:
    with pytest.raises(FormatError) as caught:
        check_parts(DOCUMENT, "a", INT4, tensors)
    assert str(caught.value) == f"a.safetensors, header: {reason}; run `mpq apply` again"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"metadata": {"mpq_index": 1}, "weight_map": {}}, "weight_map is {}: give a mapping of 1 or more entries"),
        ({"metadata": {"mpq_index": 1}, "weight_map": {"a": 1}}, "weight_map.a is 1: give text"),
        (
            {"metadata": {"mpq_index": 1, "total_size": -1}, "weight_map": {"a": "b"}},
            "metadata.total_size is -1: give a whole number of 0 or more",
        ),
        ({"weight_map": {"a": "b"}}, "it lacks the key 'metadata'"),
    ],
)
def test_a_damaged_index_is_refused_with_the_place(value: Any, reason: str) -> None:
    with pytest.raises(FormatError) as caught:
        validated(Document(value, "i.json", remedy="make it again"), IndexFile)
    assert str(caught.value) == f"i.json: {reason}; make it again"
