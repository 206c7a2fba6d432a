import itertools

import pytest
import torch

from mpq.tensors.matrix import from_matrix, to_matrix

AXES = [
    (shape, axes)
    for shape in ((6, 4), (3, 4, 5), (2, 3, 4, 5))
    for count in (1, 2)
    for axes in itertools.combinations(range(len(shape)), count)
]


@pytest.mark.parametrize(("shape", "axes"), AXES)
def test_a_weight_becomes_a_matrix_and_comes_back(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    matrix = to_matrix(weight, axes)
    back = from_matrix(matrix, shape, axes)
    assert torch.equal(back, weight)
    assert back.is_contiguous()


@pytest.mark.parametrize(("shape", "axes"), AXES)
def test_a_row_holds_what_one_output_sums_over(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    matrix = to_matrix(weight, axes)
    for row, place in enumerate(itertools.product(*(range(shape[axis]) for axis in axes))):
        index: list[int | slice] = [slice(None)] * len(shape)
        for axis, value in zip(axes, place, strict=True):
            index[axis] = value
        assert torch.equal(matrix[row], weight[tuple(index)].reshape(-1))


@pytest.mark.parametrize("groups", [2, 3])
def test_with_groups_the_matrix_is_that_of_the_same_ordinary_convolution(groups: int) -> None:
    parts = torch.randn(groups, 4, 5, 3)  # group, in, out, kernel
    ordinary, transposed = parts.transpose(1, 2).reshape(groups * 5, 4, 3), parts.reshape(groups * 4, 5, 3)
    matrix = to_matrix(transposed, (1,), groups)
    assert torch.equal(matrix, to_matrix(ordinary, (0,)))
    back = from_matrix(matrix, transposed.shape, (1,), groups)
    assert torch.equal(back, transposed)
    assert back.is_contiguous()


def test_a_matrix_is_float32_and_a_weight_of_16_bits_comes_back_exactly() -> None:
    weight = torch.randn(4, 6).bfloat16()
    matrix = to_matrix(weight, (1,))
    assert matrix.dtype == torch.float32
    assert torch.equal(from_matrix(matrix, (4, 6), (1,)).bfloat16(), weight)


def test_a_weight_of_any_layout_gives_the_same_matrix() -> None:
    weight = torch.randn(4, 3, 5, 5)
    last = weight.to(memory_format=torch.channels_last)
    assert torch.equal(to_matrix(last, (0,)), to_matrix(weight, (0,)))
