from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mpq.calibration.operands import Product
from mpq.calibration.placement import Placement, place
from mpq.models.memory.regions import Origin, region
from mpq.records.layer import Layer


def used(free: tuple[int, ...], reduced: tuple[int, ...], groups: int = 1) -> Product:
    return Product(free, reduced, groups, lambda: iter(()))


def placed(weight: Tensor, view: Tensor, product: Product, axes: tuple[int, ...] = (0,)) -> Placement:
    layer = Layer("w", ("w",), tuple(weight.shape), axes, "float32")
    found = place(Origin(0, region(weight)), region(view), layer, product)
    assert isinstance(found, Placement), found
    return found


def facts(found: Placement) -> tuple[int, int, int, list[int] | None, list[int] | None]:
    columns, values = (None if each is None else each.tolist() for each in (found.columns, found.values))
    return found.first, found.rows, found.groups, columns, values


W = torch.zeros(6, 8)
CASES: dict[str, tuple[Callable[[Tensor], Tensor], Product, tuple[int, int, int, list[int] | None, list[int] | None]]] = {
    "whole": (lambda w: w, used((0,), (1,)), (0, 6, 1, None, None)),
    "transposed": (lambda w: w.T, used((1,), (0,)), (0, 6, 1, None, None)),
    "some rows": (lambda w: w[2:5], used((0,), (1,)), (2, 3, 1, None, None)),
    "last row": (lambda w: w[5:], used((0,), (1,)), (5, 1, 1, None, None)),
    "some columns": (lambda w: w[:, 2:6], used((0,), (1,)), (0, 6, 1, [2, 3, 4, 5], None)),
    "every other column": (lambda w: w[:, ::2], used((0,), (1,)), (0, 6, 1, [0, 2, 4, 6], None)),
    "groups of rows": (lambda w: w, used((0,), (1,), 3), (0, 6, 3, None, None)),
    "experts": (lambda w: w.view(2, 3, 8), used((0, 1), (2,), 2), (0, 6, 2, None, None)),
    "columns in two dims, the last first": (
        lambda w: w.view(6, 2, 4),
        used((0,), (2, 1)),
        (0, 6, 1, [0, 4, 1, 5, 2, 6, 3, 7], None),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_and_columns_are_found_by_where_they_lie_in_memory(case: str) -> None:
    view, product, expected = CASES[case]
    assert facts(placed(W, view(W), product)) == expected


def test_a_weight_whose_outputs_come_last_has_them_as_rows() -> None:
    weight = torch.zeros(8, 6)
    assert facts(placed(weight, weight, used((1,), (0,)), (1,))) == (0, 6, 1, None, None)


def test_a_view_that_also_holds_other_memory_uses_some_values_only() -> None:
    memory = torch.zeros(6, 10)
    weight = memory[:, 1:9]
    assert facts(placed(weight, memory, used((0,), (1,)))) == (0, 6, 1, None, list(range(1, 9)))


@pytest.mark.parametrize(
    ("view", "product", "reason"),
    [
        (torch.zeros(6, 8), used((0,), (1,)), "its memory layout is not supported"),
        (W[::2], used((0,), (1,)), "its rows are used in an unsupported order"),
        (W, used((0,), (1,), 4), "its rows are used in an unsupported order"),
        (W, used((1,), (0,)), "its rows are used in an unsupported order"),
        (W[:, :1].expand(6, 8), used((0,), (1,)), "its columns are used in an unsupported order"),
    ],
)
def test_what_cannot_be_told_is_a_reason(view: Tensor, product: Product, reason: str) -> None:
    layer = Layer("w", ("w",), (6, 8), (0,), "float32")
    assert place(Origin(0, region(W)), region(view), layer, product) == reason
