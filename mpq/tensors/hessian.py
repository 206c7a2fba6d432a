"""The output error of a changed weight, from the second moment of its inputs.

With H the mean of x x^T, an error e in a row changes its output by an expected square of e H e^T. Rows do not interact, so each row is
judged separately. A weight whose rows have different inputs (groups of a convolution, experts) has one H per block of rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_SHRINKAGE = 0.5
_MOST_TRIES = 12


def blocks_of(hessian: Tensor) -> Tensor:
    """The second moments as [groups, columns, columns]."""
    return hessian if hessian.dim() == 3 else hessian.unsqueeze(0)


def to_blocks(matrix: Tensor, groups: int) -> Tensor:
    """A matrix [rows, columns] as [groups, columns, rows of a group], contiguous: a column of all rows is contiguous."""
    return matrix.view(groups, -1, matrix.shape[1]).mT.contiguous()


def from_blocks(blocks: Tensor) -> Tensor:
    """The inverse of `to_blocks`."""
    return blocks.mT.reshape(-1, blocks.shape[1])


def output_errors(difference: Tensor, hessian: Tensor) -> Tensor:
    """The expected squared output error of each row with the error `difference` [rows, columns]; float64 [rows]."""
    blocks = blocks_of(hessian)
    rows = difference.view(blocks.shape[0], -1, difference.shape[1])
    return ((rows @ blocks) * rows).sum(-1, dtype=torch.float64).view(-1)


def conditioned(hessian: Tensor, count: int, damp_percent: float) -> Tensor:
    """Second moments conditioned for optimization: float32 [groups, columns, columns], mean diagonal one, positive definite.

    Products of different columns are shrunk by sqrt(columns / count), at most one half, because that is about their relative error when
    estimated from `count` positions (shrinkage to the diagonal: Ledoit and Wolf 2004). Then a share of the mean diagonal is added to the
    diagonal. A group without any input gets the identity.
    """
    blocks = blocks_of(hessian).clone()
    diagonal = blocks.diagonal(dim1=-2, dim2=-1).clone()
    mean = diagonal.mean(-1, keepdim=True)
    diagonal = torch.where(mean > 0, diagonal / mean + damp_percent, 1.0)
    shrinkage = min(MOST_SHRINKAGE, math.sqrt(blocks.shape[-1] / max(1, count)))
    blocks *= torch.where(mean > 0, (1 - shrinkage) / mean, 0.0).unsqueeze(-1)
    blocks.diagonal(dim1=-2, dim2=-1).copy_(diagonal)
    return blocks


def importance_of(hessian: Tensor, damp_percent: float) -> Tensor:
    """The weight of each column's squared error: the energy of its inputs [groups, columns], with mean one, damped so that none is zero."""
    diagonal = blocks_of(hessian).diagonal(dim1=-2, dim2=-1)
    mean = diagonal.mean(-1, keepdim=True)
    return torch.where(mean > 0, diagonal / mean + damp_percent, 1.0)


def inverse_factor(hessian: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of conditioned second moments: float32 [groups, columns, columns].

    With H = R R^T, R upper triangular, it is the inverse of R. More damping is added if rounding made H indefinite.
    """
    flipped = hessian.double().flip(-2, -1)
    diagonal = flipped.diagonal(dim1=-2, dim2=-1)
    extra = 1e-8 * diagonal.mean(-1, keepdim=True)
    for _ in range(_MOST_TRIES):
        lower, failed = torch.linalg.cholesky_ex(flipped)
        if not bool(failed.any()):
            break
        diagonal += torch.where(failed.unsqueeze(-1) > 0, extra, 0.0)
        extra = extra * 10
    upper = lower.flip(-2, -1)
    identity = torch.eye(upper.shape[-1], dtype=upper.dtype, device=upper.device).expand_as(upper)
    inverse: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
    return inverse.float()
