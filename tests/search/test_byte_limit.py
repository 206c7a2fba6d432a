import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpq.budget import Budget
from mpq.records.artifact_layout import file_bytes
from mpq.search.byte_limit import ByteLimit, byte_limit
from tests.small import REST, linear, table

TABLE = table([linear("a", 4, 64), linear("b", 8, 64, dtype="bfloat16")], {"a": {"int4": 1.0}, "b": {"int4": 1.0}})


@pytest.mark.parametrize(("limit", "expected"), [("4bits", 384), ("300B", 300), ("50%", (256 * 4 + 512 * 2) // 2)])
def test_a_budget_of_the_layers_is_all_theirs(limit: str, expected: int) -> None:
    assert byte_limit(TABLE, Budget(limit)) == ByteLimit(layers=expected, constant=0, weights=768)


@given(st.integers(1, 10**6), st.integers(0, 10**4))
def test_what_a_file_budget_leaves_never_lets_the_file_grow_beyond_it(total: int, header: int) -> None:
    left, constant, weights = byte_limit(TABLE, Budget(f"{total}B", "file"))
    assert (left + constant, weights) == (total, 768 + REST.weights)
    data = left - header  # however the layers share it between header and data
    size = file_bytes(header_bytes=REST.header_bytes + header, data_bytes=REST.data_bytes + data)
    assert total - 7 <= size <= total


def test_shares_and_bits_of_a_file_count_everything_in_it() -> None:
    total = Budget("50%", "file").bytes(weights=1, original_bytes=256 * 4 + 512 * 2 + REST.original_bytes)
    assert sum(byte_limit(TABLE, Budget("50%", "file"))[:2]) == total
    assert sum(byte_limit(TABLE, Budget("8bits", "file"))[:2]) == 768 + REST.weights
