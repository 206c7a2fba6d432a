import pytest

from mpq.formats.stored import Stored


@pytest.mark.parametrize(
    ("dtype", "shape", "expected"), [("U8", (3, 5), 15), ("F16", (3, 5), 30), ("I64", (), 8), ("F32", (0, 7), 0), ("BF16", (1,), 2)]
)
def test_bytes_are_the_elements_times_their_width(dtype: str, shape: tuple[int, ...], expected: int) -> None:
    assert Stored("values", dtype, shape).bytes == expected
