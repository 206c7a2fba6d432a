"""Where a product meets a weight: which rows of its matrix it makes outputs of, and which column each value of a vector multiplies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mpq.calibration.operands import Product
from mpq.models.memory.regions import Integers, Origin, Region
from mpq.records.layer import Layer
from mpq.tensors.matrix import grouped_axes, grouped_shape


@dataclass(frozen=True, eq=False)
class Placement:
    """The place of one product in a weight's matrix.

    Args:
        first: the first row.
        rows: how many rows follow each other from there.
        groups: equal parts of these rows, each with separate vectors.
        columns: the column of each value that is used, or None if the values are the columns in order.
        values: which values of a vector are used, or None for all.
    """

    first: int
    rows: int
    groups: int
    columns: Tensor | None
    values: Tensor | None


def place(origin: Origin, view: Region, layer: Layer, found: Product) -> Placement | str:
    """The place of a product with the part of `layer` in `view`, or why it cannot be determined."""
    meeting = view.meeting(origin.region)
    if meeting is None:
        return "its memory layout is not supported"
    shape, axes = grouped_shape(layer.shape, layer.groups), grouped_axes(layer.axes)
    others = tuple(axis for axis in range(len(shape)) if axis not in axes)
    rows, _ = _walk(origin, view, meeting, found.free, shape, axes)
    columns, values = _walk(origin, view, meeting, found.reduced, shape, others)
    whole = len(values) == len(columns)
    if not len(rows) or not np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))) or len(rows) % found.groups:
        return "its rows are used in an unsupported order"
    if not whole or len(np.unique(columns)) != len(columns):
        return "its columns are used in an unsupported order"
    size = int(np.prod([view.shape[dim] for dim in found.reduced]))
    in_order = np.array_equal(columns, np.arange(layer.matrix[1]))
    return Placement(
        int(rows[0]),
        len(rows),
        found.groups,
        None if in_order else torch.from_numpy(columns),
        None if len(values) == size else torch.from_numpy(values),
    )


def _walk(
    origin: Origin, view: Region, meeting: int, dims: Sequence[int], shape: Sequence[int], axes: Sequence[int]
) -> tuple[Integers, Integers]:
    """Going along `dims` of `view`: the flat index over `axes` of the weight of `shape` at each step that is in the weight, and the steps.

    The first axis of the parameter is split in two in `shape`.
    """
    (start,), _ = view.indices(np.array([meeting]))
    sizes = [view.shape[dim] for dim in dims]
    indices = np.repeat(start[None], int(np.prod(sizes)), axis=0)
    indices[:, list(dims)] = np.indices(sizes).reshape(len(sizes), -1).T
    addresses = view.addresses(indices)
    _, inside = origin.region.indices(addresses)
    found = origin.trace(addresses)
    found = np.column_stack([found[:, 0] // shape[1], found[:, 0] % shape[1], found[:, 1:]])[:, list(axes)]
    return np.ravel_multi_index(tuple(found.T), [shape[axis] for axis in axes]), np.flatnonzero(inside)
