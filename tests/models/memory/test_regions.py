"""Where the elements of a weight lie, also after it was copied."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mpq.models.memory.regions import Origin, Region, leading_axes, output_axes, region

W = torch.arange(48, dtype=torch.float32).reshape(6, 8)


def listed(indices: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(int(one) for one in row) for row in indices]


def test_a_region_is_the_memory_of_a_tensor_in_bytes() -> None:
    view = W[1:3, ::2]
    found = region(view)
    assert (found.address, found.shape, found.strides) == (W.data_ptr() + 4 * 8, (2, 4), (32, 8))
    assert found.last == W.data_ptr() + 4 * (2 * 8 + 6)


@pytest.mark.parametrize("view", [W, W[2:5], W[:, 1::3], W.T, W[3:4, 2:3], W.view(2, 3, 8)])
def test_addresses_and_indices_are_inverse(view: Tensor) -> None:
    found = region(view)
    indices = np.stack(np.meshgrid(*map(np.arange, found.shape), indexing="ij"), -1).reshape(-1, len(found.shape))
    addresses = found.addresses(indices)
    again, inside = found.indices(addresses)
    assert inside.all()
    assert np.array_equal(again, indices)
    values = view.flatten().tolist()
    assert [int((address - W.data_ptr()) // 4) for address in addresses] == values


def test_addresses_between_and_beyond_the_elements_are_none() -> None:
    found = region(W[:, :4])
    start = found.address
    _, inside = found.indices(np.array([start - 4, start, start + 2, start + 16, start + 32, start + 32 * 6]))
    assert inside.tolist() == [False, True, False, False, True, False]
    assert found.holds(start + 32)
    assert not found.holds(start + 16)


def test_regions_meet_in_an_element_of_both() -> None:
    rows, columns = region(W[2:4]), region(W[:, 6:])
    meeting = rows.meeting(columns)
    assert meeting is not None
    assert rows.holds(meeting)
    assert columns.holds(meeting)
    assert region(W[:2]).meeting(region(W[2:])) is None
    assert region(W[:, :4]).meeting(region(W[:, 4:])) is None


def test_a_line_runs_along_one_dim() -> None:
    found = region(W)
    at = W.data_ptr() + 4 * (2 * 8 + 5)
    assert [int(address - W.data_ptr()) // 4 for address in found.line(at, 0)] == [5, 13, 21, 29, 37, 45]
    assert [int(address - W.data_ptr()) // 4 for address in found.line(at, 1)] == list(range(16, 24))


def test_elements_of_a_copy_are_traced_to_the_parameter() -> None:
    copy = W.T.contiguous()
    root = Origin(0, region(W))
    origin = Origin(0, region(copy), region(W.T), root)
    addresses = region(copy).addresses(np.array([[7, 0], [2, 5]]))
    assert listed(origin.trace(addresses)) == [(0, 7), (5, 2)]
    assert origin.root == region(W)
    again = copy[2:4].clone()
    second = Origin(0, region(again), region(copy[2:4]), origin)
    assert listed(second.trace(region(again).addresses(np.array([[0, 3], [1, 3]])))) == [(3, 2), (3, 3)]
    assert listed(second.trace(np.array([0]))) == []


CASES: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor], tuple[int, ...], tuple[int, ...]]] = {
    "linear": ((6, 8), lambda w: w, (1,), (0,)),
    "transposed": ((6, 8), lambda w: w.T, (-2,), (0,)),
    "[in, out]": ((8, 6), lambda w: w, (0,), (1,)),
    "experts": ((2, 6, 8), lambda w: w[1], (-1,), (0, 1)),
    "in three dims": ((6, 8), lambda w: w.view(6, 2, 4), (1, 2), (0,)),
    "one input": ((6, 1), lambda w: w, (1,), (0,)),
    "one output": ((1, 8), lambda w: w, (1,), (0,)),
    "convolution": ((6, 4, 3, 3), lambda w: w, (1, 2, 3), (0,)),
    "nothing summed": ((6, 8), lambda w: w, (), (0,)),
    "all summed": ((6, 8), lambda w: w, (0, 1), (0,)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_axes_that_are_left_are_those_of_the_outputs(case: str) -> None:
    shape, view, reduced, axes = CASES[case]
    tensor = torch.zeros(shape)
    assert output_axes(Origin(0, region(tensor)), region(view(tensor)), reduced) == axes


def test_axes_are_found_through_a_copy() -> None:
    copy = W.T.contiguous()
    origin = Origin(0, region(copy), region(W.T), Origin(0, region(W)))
    assert output_axes(origin, region(copy), (0,)) == (0,)
    assert output_axes(origin, region(copy), (1,)) == (1,)


def test_what_does_not_meet_has_its_leading_axes() -> None:
    other = torch.zeros(4)
    assert output_axes(Origin(0, region(W)), region(other), (0,)) == (0,)
    assert leading_axes((2, 3, 4)) == (0, 1)
    assert leading_axes((3,)) == ()


def test_a_scalar_is_one_element() -> None:
    assert Region(100, (), ()).last == 100
    assert Region(100, (), ()).holds(100)
