"""Accumulates second moments of one weight's inputs, and combines them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mpq.calibration.placement import Placement
from mpq.tensors.quantizers.base import Statistics

_MOST_BYTES = 4 << 30


class _Sum:
    """Sums of outer products for some rows of the matrix: float64 [groups, columns, columns], and the number of vectors per group."""

    def __init__(self, groups: int, columns: int) -> None:
        self.total: Tensor | None = None
        self.counts = torch.zeros(groups, dtype=torch.float64)
        self._shape = (groups, columns, columns)

    def add(self, outer: Tensor, positions: int, placed: Placement, group: int | None) -> None:
        """Add sums of outer products [groups, values, values], or [1, ...] for one `group`."""
        if self.total is None:
            self.total = torch.zeros(self._shape, dtype=torch.float64, device=outer.device)
        mine = slice(None) if group is None else slice(group, group + 1)
        self.counts[mine] += positions
        if placed.values is not None:
            values = placed.values.to(outer.device)
            outer = outer[:, values][:, :, values]
        if placed.columns is None:
            self.total[mine] += outer
        else:
            groups = torch.arange(len(self.counts), device=outer.device)[mine]
            columns = placed.columns.to(outer.device)
            self.total[groups[:, None, None], columns[:, None], columns] += outer


class Moments:
    """All sums of one weight, by the rows and groups that they belong to."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int, int], _Sum] = {}

    @property
    def seen(self) -> bool:
        """Whether anything was added."""
        return any(found.total is not None for found in self._sums.values())

    def at(self, placed: Placement, columns: int) -> _Sum:
        """The sum for the rows and groups of one placement."""
        key = (placed.first, placed.rows, placed.groups)
        if key not in self._sums:
            self._sums[key] = _Sum(placed.groups, columns)
        return self._sums[key]

    def statistics(self, matrix: tuple[int, int], *, looked_up: bool = False) -> Statistics | str:
        """The statistics of the whole matrix, or why there are none; rows that were never reached get zeros.

        Args:
            matrix: rows and columns.
            looked_up: whether its rows are outputs as well, so that every column counts by itself.
        """
        rows, columns = matrix
        sums = {key: found for key, found in self._sums.items() if found.total is not None}
        step = math.gcd(rows, *(math.gcd(first, count // groups) for first, count, groups in sums))
        blocks = rows // step
        if len(sums) > 1 and 4 * blocks * columns**2 > _MOST_BYTES:
            return "its rows see too many different inputs"
        hessian = torch.zeros(blocks, columns, columns)
        counts = torch.zeros(blocks, dtype=torch.float64)
        for block in range(blocks):
            hessian[block], counts[block] = _mean(sums, block * step)
        if not bool(torch.isfinite(hessian).all()):
            return "its inputs are not finite"
        if looked_up:
            diagonal = hessian.diagonal(dim1=-2, dim2=-1)
            diagonal += diagonal.mean(-1, keepdim=True)
        return Statistics(hessian if blocks > 1 else hessian[0], int(counts.max()))


def _mean(sums: dict[tuple[int, int, int], _Sum], row: int) -> tuple[Tensor, float]:
    """The mean outer product over all vectors that `row` meets, and their number."""
    total: Tensor | None = None
    number = 0.0
    for (first, rows, groups), found in sums.items():
        if first <= row < first + rows and found.total is not None:
            group = (row - first) // (rows // groups)
            total = found.total[group] if total is None else total + found.total[group]
            number += float(found.counts[group])
    if total is None or number == 0:
        (some, *_) = sums.values()
        assert some.total is not None
        return torch.zeros_like(some.total[0]), 0.0
    return total / number, number
