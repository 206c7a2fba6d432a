import pytest

from mpq.formats.activations import is_integer_product
from mpq.formats.scheme import parse_scheme


@pytest.mark.parametrize(
    ("text", "expected"),
    [("int8", True), ("int4", True), ("int8-g32", False), ("int8-asym", False), ("fp16", False), ("nf4", False), ("fp8-e4m3", False)],
)
def test_weights_with_one_scale_per_row_and_no_zero_point_are_multiplied_as_integers(text: str, expected: bool) -> None:
    assert is_integer_product(parse_scheme(text)) == expected
