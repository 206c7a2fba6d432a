import pytest

from mpq.errors import SchemeError
from mpq.formats.coded import coded_format
from mpq.formats.packed_layout import packed_bytes
from mpq.formats.scheme import Scheme, parse_scheme


@pytest.mark.parametrize(
    ("text", "name", "rate"),
    [("ec1", "ec1", 1.0), ("ec4.50", "ec4.5", 4.5), ("EC3.25", "ec3.25", 3.25), ("ec1.01", "ec1.01", 1.01), ("ec8.0", "ec8", 8.0)],
)
def test_a_rate_is_read_without_zeros_at_its_end(text: str, name: str, rate: float) -> None:
    scheme = parse_scheme(text)
    assert (str(scheme), scheme.rate, scheme.bits, scheme.is_coded, scheme.is_integer) == (name, rate, 8, True, True)
    assert scheme == Scheme(name)


@pytest.mark.parametrize("name", ["ec0.99", "ec8.01", "ec9", "ec4.125", "ec", "ec4.", "int4", "ec10", "ec 4", "ec4\n"])
def test_other_rates_are_no_formats(name: str) -> None:
    assert coded_format(name) is None


@pytest.mark.parametrize("text", ["ec9", "ec0.5", "ec4.125"])
def test_a_rate_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(SchemeError) as error:
        parse_scheme(text)
    assert str(error.value) == f"unknown scheme '{text}': coded formats are ec1 to ec8 with at most two decimals, for example ec4.5"


@pytest.mark.parametrize("tail", ["-asym", "-g32", "-g32-s8"])
def test_there_are_neither_groups_nor_zero_points(tail: str) -> None:
    with pytest.raises(SchemeError) as error:
        parse_scheme(f"ec3.5{tail}")
    assert str(error.value) == "'ec3.5' has one step for the whole layer: write ec3.5 without -asym, -gN and -s8"


@pytest.mark.parametrize(
    ("text", "matrix", "size"), [("ec4.5", (64, 64), 2304), ("ec3.33", (7, 9), 26), ("ec1", (1, 7), 0), ("ec8", (3, 5), 15)]
)
def test_all_that_is_stored_takes_the_rate(text: str, matrix: tuple[int, int], size: int) -> None:
    scheme = parse_scheme(text)
    assert [(part.part, part.dtype, part.shape) for part in scheme.stored(matrix)] == [("codes", "U8", (size,))]
    assert scheme.stored_bits(matrix) == 8 * size


def test_in_memory_codes_are_those_of_int8() -> None:
    assert parse_scheme("ec2.5").in_memory == Scheme("int8")
    assert Scheme("int4", 32).in_memory == Scheme("int4", 32)
    assert packed_bytes(parse_scheme("ec2.5"), (64, 64)) == packed_bytes(Scheme("int8"), (64, 64))
    assert [parse_scheme(text).rate for text in ("int4-g32", "nl5", "fp16", "ternary")] == [4, 5, 16, 2]
