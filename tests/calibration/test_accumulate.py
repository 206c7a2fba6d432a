import pytest
import torch
from torch import Tensor

from mpq.calibration import accumulate
from mpq.calibration.accumulate import Moments
from mpq.calibration.placement import Placement
from mpq.tensors.quantizers.base import Statistics


def vectors(count: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed))


def whole(first: int, rows: int, groups: int = 1) -> Placement:
    return Placement(first, rows, groups, None, None)


def add(moments: Moments, placed: Placement, columns: int, *given: Tensor, group: int | None = None) -> None:
    """Sums of outer products of vectors, a tensor for each group."""
    outer = torch.stack([(each.double().T @ each.double()) for each in given])
    moments.at(placed, columns).add(outer, len(given[0]), placed, group)


def found(moments: Moments, rows: int, columns: int, *, looked_up: bool = False) -> Statistics:
    statistics = moments.statistics((rows, columns), looked_up=looked_up)
    assert isinstance(statistics, Statistics)
    return statistics


def mean(*given: Tensor) -> Tensor:
    joined = torch.cat(given)
    return joined.T @ joined / len(joined)


def test_vectors_of_all_batches_have_one_mean_however_many_each_holds() -> None:
    moments, (a, b) = Moments(), (vectors(3, 4), vectors(7, 4, seed=1))
    assert not moments.seen
    for each in (a, b):
        add(moments, whole(0, 6), 4, each)
    assert moments.seen
    statistics = found(moments, 6, 4)
    torch.testing.assert_close(statistics.hessian, mean(a, b))
    assert (statistics.count, statistics.hessian.dtype) == (10, torch.float32)


def test_groups_of_rows_keep_their_vectors_apart() -> None:
    moments, (a, b) = Moments(), (vectors(5, 3), vectors(5, 3, seed=1))
    add(moments, whole(0, 4, 2), 3, a, b)
    torch.testing.assert_close(found(moments, 4, 3).hessian, torch.stack([mean(a), mean(b)]))


def test_one_group_alone_may_get_vectors() -> None:
    moments, a = Moments(), vectors(5, 3)
    add(moments, whole(0, 4, 2), 3, a, group=1)
    statistics = found(moments, 4, 3)
    torch.testing.assert_close(statistics.hessian, torch.stack([torch.zeros(3, 3), mean(a)]))
    assert statistics.count == 5


def test_rows_that_several_products_meet_have_the_mean_of_them_all() -> None:
    moments, (a, b) = Moments(), (vectors(4, 3), vectors(8, 3, seed=1))
    add(moments, whole(0, 6), 3, a)
    add(moments, whole(2, 2), 3, b)
    torch.testing.assert_close(found(moments, 6, 3).hessian, torch.stack([mean(a), mean(a, b), mean(a)]))


def test_values_that_stand_in_other_columns_are_put_there_and_others_left_out() -> None:
    moments, a = Moments(), vectors(5, 4)
    placed = Placement(0, 2, 1, torch.tensor([2, 0]), torch.tensor([1, 3]))
    add(moments, placed, 3, a)
    expected = torch.zeros(3, 3)
    used = a[:, [3, 1]]  # the columns 0 and 2
    expected[torch.tensor([[0], [2]]), torch.tensor([0, 2])] = mean(used)
    torch.testing.assert_close(found(moments, 2, 3).hessian, expected)


def test_rows_that_are_outputs_too_count_every_column_by_itself_as_well() -> None:
    moments, a = Moments(), vectors(5, 3)
    add(moments, whole(0, 2), 3, a)
    expected = mean(a)
    torch.testing.assert_close(found(moments, 2, 3, looked_up=True).hessian, expected + torch.eye(3) * expected.diagonal().mean())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_a_reason(value: float) -> None:
    moments = Moments()
    add(moments, whole(0, 2), 3, torch.full((1, 3), value))
    assert moments.statistics((2, 3)) == "its inputs are not finite"


def test_too_many_kinds_of_inputs_are_a_reason_but_one_kind_never_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accumulate, "_MOST_BYTES", 2 * 4 * 9 - 1)
    moments = Moments()
    add(moments, whole(0, 4, 2), 3, vectors(2, 3), vectors(2, 3))
    assert isinstance(moments.statistics((4, 3)), Statistics)
    add(moments, whole(0, 2), 3, vectors(2, 3))
    assert moments.statistics((4, 3)) == "its rows see too many different inputs"


def test_sums_are_kept_in_double_precision() -> None:
    moments = Moments()
    add(moments, whole(0, 1), 1, torch.tensor([[2.0**14]]))
    for _ in range(64):
        add(moments, whole(0, 1), 1, torch.tensor([[1.0]]))
    assert found(moments, 1, 1).hessian.item() == torch.tensor((2.0**28 + 64) / 65).item()
