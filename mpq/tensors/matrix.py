"""A weight as a matrix [rows, columns]: rows are the output channels, columns are the elements that one output sums over.

The weight of a grouped transposed convolution is [in, out / groups, ...], and each part of its first axis has its own outputs. With
`groups`, the rows are those of the first part, then those of the second: like in the weight [out, in / groups, ...] of a convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def to_matrix(weight: Tensor, axes: Sequence[int], groups: int = 1) -> Tensor:
    """The weight as a float32 matrix [rows, columns], its output `axes` first; a copy only if needed."""
    if groups > 1:
        return to_matrix(weight.reshape(grouped_shape(weight.shape, groups)), grouped_axes(axes))
    order = _order(weight.ndim, axes)
    rows = 1
    for axis in axes:
        rows *= weight.shape[axis]
    return weight.permute(order).reshape(rows, -1).float()


def from_matrix(matrix: Tensor, shape: Sequence[int], axes: Sequence[int], groups: int = 1) -> Tensor:
    """The weight of `shape` whose matrix over `axes` is `matrix`; contiguous, with the matrix's dtype."""
    if groups > 1:
        return from_matrix(matrix, grouped_shape(shape, groups), grouped_axes(axes)).flatten(0, 1)
    order = _order(len(shape), axes)
    permuted = matrix.reshape([shape[axis] for axis in order])
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return permuted.permute(inverse).contiguous()


def grouped_shape(shape: Sequence[int], groups: int) -> tuple[int, ...]:
    """The shape of a weight whose first axis is split in two: the groups, and the elements of each."""
    return groups, shape[0] // groups, *shape[1:]


def grouped_axes(axes: Sequence[int]) -> tuple[int, ...]:
    """The output axes of a weight after the split by `grouped_shape`: the groups come first."""
    return 0, *(axis + 1 for axis in axes)


def _order(ndim: int, axes: Sequence[int]) -> list[int]:
    return [*axes, *(axis for axis in range(ndim) if axis not in axes)]
