"""A weight seen as a matrix [rows, columns]: rows are the output channels, columns what one output sums over."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def to_matrix(weight: Tensor, axes: Sequence[int]) -> Tensor:
    """The weight as a float32 matrix [rows, columns], its output `axes` first; a copy only where one is needed."""
    order = _order(weight.ndim, axes)
    rows = 1
    for axis in axes:
        rows *= weight.shape[axis]
    return weight.permute(order).reshape(rows, -1).float()


def from_matrix(matrix: Tensor, shape: Sequence[int], axes: Sequence[int]) -> Tensor:
    """The weight of `shape` whose matrix over `axes` is `matrix`; contiguous, with the matrix's dtype."""
    order = _order(len(shape), axes)
    permuted = matrix.reshape([shape[axis] for axis in order])
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return permuted.permute(inverse).contiguous()


def _order(ndim: int, axes: Sequence[int]) -> list[int]:
    return [*axes, *(axis for axis in range(ndim) if axis not in axes)]
