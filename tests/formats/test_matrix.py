"""The shape of a weight with rows that are stored once."""

import pytest

from mpq.formats.matrix import Matrix, alike_rows, all_rows, matrix_of
from mpq.formats.scheme import parse_scheme


def test_a_shape_is_a_pair_that_differs_by_its_rows_alike() -> None:
    shared = matrix_of(10, 4, 6)
    assert (tuple(shared), str(shared), alike_rows(shared), all_rows(shared)) == ((10, 4), "10x4/6", 6, (10, 4))
    assert shared == matrix_of(10, 4, 6)
    assert len({shared, matrix_of(10, 4, 6), matrix_of(10, 4, 5), (10, 4)}) == 3
    assert shared != (10, 4)
    assert type(matrix_of(10, 4)) is tuple
    assert alike_rows((10, 4)) == 0
    assert all_rows((10, 4)) == (10, 4)


@pytest.mark.parametrize("text", ["int4", "int4-g32", "int3-asym-g8", "int4-g16-s8", "ternary", "nf4-g32", "mxfp4", "fp16", "ec4"])
def test_a_common_row_is_counted_once_and_a_bit_for_each_row(text: str) -> None:
    scheme, shared = parse_scheme(text), Matrix(1000, 64, 301)
    assert scheme.stored_bits(shared) == scheme.stored_bits((700, 64)) + 1000
    assert scheme.stored(shared)[:-1] == scheme.stored((700, 64))
    assert scheme.stored_bits(Matrix(1001, 64, 301)) == scheme.stored_bits((701, 64)) + 1008
