"""Which matrices of a stack are read."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mpq.models.layers.stack_parts import looked_up_rows, parts_read
from mpq.models.memory.regions import Origin, region
from tests.models.layers.discovering import Lambda, X, find, weight

STACK = torch.zeros(4, 8, 6)
ORIGIN = Origin(0, region(STACK))
ALL = {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("view", "expected"),
    [(STACK, ALL), (STACK[2], {2}), (STACK[3].t(), {3}), (STACK[1:3], {1, 2}), (STACK[1, 2:4], {1}), (torch.zeros(8, 6), ALL)],
)
def test_a_view_reads_the_matrices_that_it_reaches(view: Tensor, expected: set[int]) -> None:
    assert parts_read(region(view), ORIGIN, {}, looked_up=False) == expected


def test_a_copy_of_a_matrix_is_that_matrix() -> None:
    copy = STACK[2].clone()
    origin = Origin(0, region(copy), region(STACK[2]), ORIGIN)
    assert parts_read(region(copy), origin, {}, looked_up=False) == {2}


def test_a_grouped_product_reads_the_matrices_that_get_rows() -> None:
    assert parts_read(region(STACK), ORIGIN, {"offs": torch.tensor([2, 2, 5, 5])}, looked_up=False) == {0, 2}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"index": torch.tensor([[3, 0], [3, 3]])}, {0, 3}),
        ({"indices": [torch.tensor([1])]}, {1}),
        ({"index": torch.tensor([1]), "dim": 1}, None),
        ({"index": torch.tensor([True, False])}, None),
        ({}, None),
    ],
)
def test_rows_are_looked_up_by_plain_indices(arguments: dict[str, Any], expected: set[int] | None) -> None:
    assert looked_up_rows(arguments) == expected
    assert parts_read(region(STACK), ORIGIN, arguments, looked_up=True) == (ALL if expected is None else expected)


def test_a_discovery_counts_the_experts_that_the_data_reaches() -> None:
    def some(self: Any, x: Tensor) -> Tensor:
        found = x @ self.experts[0] + x @ self.experts[2]
        result: Tensor = found @ self.all[0] + found @ self.all[1]
        return result

    found = find(Lambda(some, experts=weight(3, 8, 6), all=weight(2, 6, 5)), X)
    assert [layer.name for layer in found.layers] == ["experts", "all"]
    assert found.stacks == {"experts": (2, 3)}
