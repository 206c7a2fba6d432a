import pytest

from mpq.analyze.candidates import CODED, FINE, candidates_for, expand
from mpq.errors import SchemeError
from mpq.records.layer import Layer
from tests.small import linear


def texts(layer: Layer, *wanted: str, sixteen: str = "fp16") -> list[str]:
    return [str(scheme) for scheme in candidates_for(layer, expand(wanted), lambda _: sixteen)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["4", "8"], ["4", "8"]),
        (["2..4", "16"], ["2", "3", "4", "16"]),
        (["4,8", " 8 , int4-g32 "], ["4", "8", "int4-g32"]),
        (["8..8"], ["8"]),
        (["32", "bf16"], ["32", "bf16"]),
        (["8,fine"], ["8", *FINE]),
        (["coded,16"], [*CODED, "16"]),
    ],
)
def test_lists_and_ranges_are_written_out_once(given: list[str], expected: list[str]) -> None:
    assert expand(given) == expected


BITS = "bits is not a candidate: use 2 to 8, 16 or 32, or a scheme such as int4-g128"
GRAMMAR = "is not a scheme: write <format>[-asym][-gN][-s8], for example int4, int8-asym, int4-g128, fp16"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no candidate schemes given: use for example --candidates 4,8,16"),
        ([" , "], "no candidate schemes given: use for example --candidates 4,8,16"),
        (["1"], f"'1' {BITS}"),
        (["7..9"], f"'9' {BITS}"),
        (["8..4"], "'8..4' is an empty range of bits: write the smaller number first, for example 2..8"),
        (["int"], f"'int' {GRAMMAR}"),
        (["4.5"], f"'4.5' {GRAMMAR}"),
        (["\u00b2"], f"'\u00b2' {GRAMMAR}"),
    ],
)
def test_what_is_no_candidate_is_refused(given: list[str], message: str) -> None:
    with pytest.raises(SchemeError) as error:
        expand(given)
    assert str(error.value) == message


def test_bits_come_with_every_group_size_that_divides_a_row_smallest_first() -> None:
    assert texts(linear("a", 4, 256), "4", "8", "16") == ["int4", "int4-g128", "int4-g64", "int4-g32", "int8", "fp16"]
    assert texts(linear("a", 4, 96), "4") == ["int4", "int4-g32"]
    assert texts(linear("a", 4, 32), "4") == ["int4"]
    assert texts(linear("a", 4, 27), "2..3") == ["int2", "int3"]


def test_fine_candidates_are_finer_than_integers_of_their_size() -> None:
    found = texts(linear("a", 4, 256), "fine")
    assert found[:4] == ["int2-g32-s8", "int2-g16-s8", "nl3", "nl3-g64-s8"]
    assert len(found) == len(FINE) == 17
    assert texts(linear("a", 4, 27), "fine") == ["int2", "int2-g16-s8", "nl3", "nl4", "nl5", "nl6", "nl7"]


def test_a_named_group_size_may_leave_a_shorter_last_group_and_a_whole_row_is_no_group() -> None:
    assert texts(linear("a", 4, 100), "int4-g32") == ["int4-g32"]
    assert texts(linear("a", 4, 32), "int4-g32", "int4-asym-g128", "int4") == ["int4", "int4-asym"]


def test_schemes_with_the_same_groups_count_once() -> None:
    assert texts(linear("a", 4, 100), "int4-g64", "int4-g50") == ["int4-g64"]


def test_sixteen_bits_are_the_layers_own_and_thirty_two_only_where_it_has_them() -> None:
    assert texts(linear("a", 4, 32), "16", "32", sixteen="bf16") == ["bf16", "fp32"]
    assert texts(linear("a", 4, 32, dtype="bfloat16"), "16", "32", sixteen="bf16") == ["bf16"]
