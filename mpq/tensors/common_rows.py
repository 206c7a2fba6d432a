"""Rows of a table that are one common row: vocabulary that is padded, or that training never reached.

Such rows differ from each other by far less than from all others. In stories15m, 20,382 of 32,000 rows are within 10% of their mean, and
within 1.2% on average. They are found without data, replaced by their mean before they are quantized, and stored once; what this changes is
part of the measured error.

The common row is looked for where rows are densest: by their norm and by two fixed projections, and at both ends, where padding is.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mpq.tensors.packing import pack, unpack

TOLERANCE = 0.1  # of the common row's norm; codes of 4 bits are as far from their weights
LEAST_ROWS = 256  # of a table; a smaller one has little to save
_FEWEST = 16  # rows that are alike
CORE = 0.02  # mean distance of the common rows, likewise; rows that are merely near each other are further apart
_PROJECTIONS = 2
_REFINEMENTS = 3  # of the mean
_WINDOW = 64  # neighbors in the order of a projection whose distance tells how dense rows are
_VALUES = 1 << 24  # of differences in memory at a time


def common_rows(matrix: Tensor) -> Tensor | None:
    """Which rows [rows] of a float32 matrix [rows, columns] are one common row; None if too few are to save anything."""
    matrix = matrix.detach().cpu()
    if len(matrix) < LEAST_ROWS:
        return None
    best = max((_near(matrix, matrix[place]) for place in _dense_places(matrix)), key=lambda near: int(near.sum()))
    for _ in range(_REFINEMENTS if int(best.sum()) >= _FEWEST else 0):
        best = _near(matrix, matrix[best].double().mean(0).float())
    alike, bits = int(best.sum()), 2 * matrix.shape[1]
    worth = alike >= _FEWEST and (alike - 1) * bits > len(matrix)
    return best if worth and spread_of(matrix, best) <= CORE else None


def merged(matrix: Tensor, common: Tensor) -> Tensor:
    """The rows that a file holds: those that are unlike, in order, then the mean of the others."""
    common = common.to(matrix.device)
    return torch.cat([matrix[~common], matrix[common].double().mean(0, keepdim=True).to(matrix.dtype)])


def with_common_mean(matrix: Tensor, common: Tensor) -> Tensor:
    """The matrix with the mean of the common rows in each of them."""
    return merged(matrix, common)[places_of(common.to(matrix.device))]


def places_of(common: Tensor) -> Tensor:
    """Where each row is among those that a file holds, int64 [rows]."""
    unlike = ~common
    return torch.where(common, int(unlike.sum()), unlike.cumsum(0) - 1)


def stored_places(common: Tensor) -> Tensor:
    """Where the rows that a file holds are in the whole matrix, int64: the inverse of `places_of`."""
    return torch.cat([(~common).nonzero().view(-1), common.nonzero().view(-1)[:1]])


def spread_of(matrix: Tensor, common: Tensor) -> float:
    """The mean distance of the common rows from their mean, relative to the mean's norm."""
    rows = matrix.detach().cpu()[common]
    mean = rows.double().mean(0)
    norm = float(mean.norm())
    return float((rows.double() - mean).norm(dim=1).mean()) / norm if norm else 0.0


def to_bits(common: Tensor) -> Tensor:
    """A bit for each row, uint8 [rows / 8]."""
    return pack(common.cpu().to(torch.uint8), 1)


def from_bits(bits: Tensor, rows: int) -> Tensor:
    """The inverse of `to_bits`, bool [rows]."""
    return unpack(bits, 1, rows).bool()


def _near(matrix: Tensor, center: Tensor) -> Tensor:
    """Which rows are within the tolerance of a row, bool [rows]."""
    limit = TOLERANCE * float(center.norm())
    return torch.cat([(rows - center).norm(dim=1) <= limit for rows in torch.split(matrix, max(1, _VALUES // matrix.shape[1]))])


def _dense_places(matrix: Tensor) -> Iterator[int]:
    """Rows where many others may be near: the first, the last, and the middle of the densest window in the order of a number by row."""
    yield from (0, len(matrix) - 1)
    signs = torch.randint(0, 2, (matrix.shape[1], _PROJECTIONS), generator=torch.Generator().manual_seed(0)).float().mul_(2).sub_(1)
    for numbers in (matrix.norm(dim=1), *(matrix @ signs).T):
        ascending, order = numbers.sort()
        window = min(_WINDOW, len(ascending) - 1)
        yield int(order[int((ascending[window:] - ascending[:-window]).argmin()) + window // 2])
