"""The theoretical limit: the least rate at which any code reaches a given output error, for normally distributed weights.

A row of weights with variance v whose inputs have second moment H has, in the basis of H's eigenvectors, independent components whose
output variances are v times the eigenvalues. The best code leaves out the components below a level t and gives all others the error t
(reverse water-filling: Cover and Thomas, Elements of Information Theory, theorem 10.3.3):

    output error = sum of min(t, v * eigenvalue)        bits = sum of log2(v * eigenvalue / t) / 2 where it is positive
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mpq.tensors.hessian import blocks_of

_HALVINGS = 100
_OCTAVES = 200  # from the largest component to the lowest level


def least_bits(error: float, variances: Tensor, hessian: Tensor) -> float:
    """The least bits per weight at which the sum of the rows' expected squared output errors can be `error`; infinite for no error.

    Args:
        error: see `tensors/hessian.py`.
        variances: mean squares of the weights of each row, [rows].
        hessian: second moments of the inputs, [columns, columns] or [groups, columns, columns].
    """
    eigenvalues: Tensor = torch.linalg.eigvalsh(blocks_of(hessian).double()).clamp_(min=0)
    rows = variances.double().view(len(eigenvalues), -1)
    if error <= 0:
        return math.inf
    if error >= float((rows * eigenvalues.sum(-1, keepdim=True)).sum()):
        return 0.0
    high = math.log2(float((rows * eigenvalues[:, -1:]).max()))
    low = high - _OCTAVES
    for _ in range(_HALVINGS):
        level = (low + high) / 2
        if _at_level(2.0**level, rows, eigenvalues)[0] > error:
            high = level
        else:
            low = level
    bits = _at_level(2.0**low, rows, eigenvalues)[1]
    return bits / (rows.numel() * eigenvalues.shape[1])


def _at_level(level: float, rows: Tensor, eigenvalues: Tensor) -> tuple[float, float]:
    """The output error and the bits at a level; rows are [groups, rows], eigenvalues [groups, columns] in ascending order."""
    variances = rows.clamp(min=torch.finfo(rows.dtype).tiny)
    below = torch.searchsorted(eigenvalues, level / variances)
    above = eigenvalues.shape[1] - below
    sums = torch.nn.functional.pad(eigenvalues.cumsum(-1), (1, 0)).gather(1, below)
    logs = eigenvalues.clamp(min=torch.finfo(rows.dtype).tiny).log2()
    rest = torch.nn.functional.pad(logs.flip(-1).cumsum(-1), (1, 0)).gather(1, above)
    error = variances * sums + above * level
    bits = (rest + above * (variances / level).log2()) / 2
    return float(error.sum()), float(bits.sum())
