from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mpq.data.sparse import parts_of, same_tensors

DENSE = torch.tensor([[0.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 4.0]])
pytestmark = pytest.mark.filterwarnings("ignore:Sparse")


def lists(tensor: Tensor) -> list[object]:
    return [part.tolist() for part in parts_of(tensor)]


def test_a_plain_tensor_is_its_own_part() -> None:
    assert parts_of(DENSE) == (DENSE,)


def test_entries_of_one_place_are_added_up() -> None:
    tensor = torch.sparse_coo_tensor(torch.tensor([[1, 0, 1], [0, 1, 0]]), torch.tensor([1.0, 2.0, 2.0]), (2, 4))
    assert lists(tensor) == [[[0, 1], [1, 0]], [2, 3]]


def test_compressed_tensors_have_their_indices_and_values() -> None:
    assert lists(DENSE.to_sparse_csr()) == [[0, 1, 3], [1, 0, 3], [2, 3, 4]]
    assert lists(DENSE.to_sparse_csc()) == [[0, 1, 2, 2, 3], [1, 0, 1], [3, 2, 4]]
    assert lists(DENSE.to_sparse_bsr((2, 2))) == [[0, 2], [0, 1], [[[0, 2], [3, 0]], [[0, 0], [0, 4]]]]
    assert lists(DENSE.to_sparse_bsc((2, 2))) == [[0, 1, 2], [0, 0], [[[0, 2], [3, 0]], [[0, 0], [0, 4]]]]


KINDS: dict[str, Callable[[], Tensor]] = {
    "plain": DENSE.clone,
    "coo": DENSE.to_sparse,
    "csr": DENSE.to_sparse_csr,
    "csc": DENSE.to_sparse_csc,
    "bsr": lambda: DENSE.to_sparse_bsr((2, 2)),
    "bsc": lambda: DENSE.to_sparse_bsc((2, 2)),
}


@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_tensors_are_the_same_where_they_are_stored_alike(one: str, other: str) -> None:
    assert same_tensors(KINDS[one](), KINDS[other]()) == (one == other)


def test_not_a_number_is_itself_and_zeros_have_no_sign() -> None:
    holed = torch.tensor([1.0, float("nan")])
    assert same_tensors(holed, holed.clone())
    assert not same_tensors(holed, torch.tensor([1.0, 2.0]))
    assert not same_tensors(torch.tensor([1.0, 2.0]), holed)
    assert same_tensors(torch.tensor([0.0]), torch.tensor([-0.0]))


def test_other_shapes_dtypes_and_values_differ() -> None:
    assert not same_tensors(torch.zeros(2), torch.zeros(1, 2))
    assert not same_tensors(torch.zeros(2), torch.zeros(2, dtype=torch.float64))
    assert not same_tensors(torch.tensor([True]), torch.tensor([False]))
    assert same_tensors(torch.tensor([1, 2]), torch.tensor([1, 2]))


def test_sparse_tensors_of_other_places_differ() -> None:
    one = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).to_sparse()
    assert not same_tensors(one, torch.tensor([[0.0, 1.0], [0.0, 0.0]]).to_sparse())
    assert not same_tensors(one, torch.tensor([[1.0, 1.0], [0.0, 0.0]]).to_sparse())
