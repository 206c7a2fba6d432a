"""Rows of a table that are one common row."""

import pytest
import torch
from torch import Tensor

from mpq.tensors.common_rows import (
    common_rows,
    from_bits,
    merged,
    places_of,
    spread_of,
    stored_places,
    to_bits,
    with_common_mean,
)


def table(rows: int = 400, columns: int = 24, *, alike: slice | Tensor = slice(0), noise: float = 0.001) -> Tensor:
    made = torch.Generator().manual_seed(0)
    matrix = torch.randn(rows, columns, generator=made)
    row = torch.randn(columns, generator=made)
    matrix[alike] = row * (1 + noise * torch.randn(matrix[alike].shape, generator=made))
    return matrix


@pytest.mark.parametrize(
    "alike", [slice(380, 400), slice(0, 20), slice(100, 360), torch.arange(3, 400, 7)], ids=["end", "begin", "most", "mixed"]
)
def test_near_equal_rows_are_found_wherever_they_are(alike: slice | Tensor) -> None:
    matrix = table(alike=alike)
    expected = torch.zeros(400, dtype=torch.bool)
    expected[alike] = True
    found = common_rows(matrix)
    assert found is not None
    assert torch.equal(found, expected)
    assert 0 < spread_of(matrix, found) < 0.005


def test_rows_of_zeros_are_one_row() -> None:
    matrix = table()
    matrix[50:150] = 0
    found = common_rows(matrix)
    assert found is not None
    assert found.nonzero().view(-1).tolist() == list(range(50, 150))
    assert spread_of(matrix, found) == 0


def test_unlike_rows_few_rows_and_small_tables_are_left_alone() -> None:
    assert common_rows(table()) is None
    assert common_rows(table(alike=slice(0, 15))) is None
    assert common_rows(table(255, alike=slice(0, 200))) is None
    assert common_rows(table(alike=slice(0, 200), noise=0.2)) is None  # 20% apart
    assert common_rows(table(alike=slice(0, 200), noise=0.05)) is None  # near each other, but not one row
    assert common_rows(table(2000, 24, alike=slice(0, 40))) is None  # saves less than the bits for 2,000 rows
    assert common_rows(table(1500, 24, alike=slice(0, 40))) is not None


def test_a_near_row_of_other_length_is_not_merged() -> None:
    matrix = table(alike=slice(0, 100))
    matrix[200] = matrix[0] * 1.15
    found = common_rows(matrix)
    assert found is not None
    assert (int(found.sum()), bool(found[200])) == (100, False)


def test_the_stored_rows_are_the_others_in_order_and_then_the_mean() -> None:
    matrix = torch.tensor([[1.0, 2.0], [5.0, 5.0], [3.0, 4.0], [7.0, 8.0]])
    common = torch.tensor([True, False, True, False])
    assert merged(matrix, common).tolist() == [[5, 5], [7, 8], [2, 3]]
    assert places_of(common).tolist() == [2, 0, 2, 1]
    assert stored_places(common).tolist() == [1, 3, 0]
    assert with_common_mean(matrix, common).tolist() == [[2, 3], [5, 5], [2, 3], [7, 8]]


def test_bits_are_read_back() -> None:
    common = torch.tensor([True, False, False, True, True, False, False, False, True])
    assert to_bits(common).tolist() == [0b00011001, 1]
    assert torch.equal(from_bits(to_bits(common), 9), common)
