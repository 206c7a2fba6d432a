"""Whether fp16 can represent what a scheme stores for a weight: its scales, or its values.

Quantization does not depend on the unit of the weights. So the cost of fp16's limited range is the error of a weight compared with the
error of the same weight in a unit that uses the range fully. Units are powers of two, which change nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.errors import NumericsError
from mpq.formats.scheme import Scheme
from mpq.tensors.quantized import FLOAT_DTYPES
from mpq.tensors.scales import Scales, grouped, losses, minmax_scales

_ALLOWED_LOSS = 4.0  # factor on the scheme's own squared error: equivalent to one bit less
_MOVED = 0.5  # a stored scale with a larger relative error counts as wrong
_ALLOWED_SHARE = 0.01  # share of the sum of squared weights allowed in groups with such scales
_LOST = 0.5  # share of the squares of one row
_FINE_SCALE = 2.0**-18  # 64 fp16 steps above zero
_BF16_LOSS = 2.0**-20  # relative squared error of rounding to bf16
_TOP = 15  # exponent of weights that use the full range: no scale is larger than the largest weight
_MOST_EXPONENT = 126
_CHUNK = 1 << 20


def fits_range(matrix: Tensor, scheme: Scheme) -> bool:
    """Whether a matrix [rows, columns] loses little precision to the range of the stored numbers, beyond the scheme's own error.

    Scales may not exceed 65504. If they are so small that fp16 rounds them coarsely, or to zero, the squared error of the whole matrix may
    be at most four times its usual value, and groups whose scale is wrong by more than half may have at most a hundredth of its squares.
    Values in fp16 may not lose more than in bf16.
    """
    if scheme.is_float:
        return FLOAT_DTYPES[scheme.format] != torch.float16 or _float16_loss(matrix) <= _BF16_LOSS
    chunks = torch.split(matrix, max(1, _CHUNK // matrix.shape[1]))
    try:
        scales = [minmax_scales(grouped(chunk, scheme), scheme) for chunk in chunks]
    except NumericsError:
        return False
    if all(_are_fine(grouped(chunk, scheme), found) for chunk, found in zip(chunks, scales, strict=True)):
        return True
    unit = 2.0 ** _clamped(int(torch.frexp(matrix.abs().max()).exponent) - _TOP)
    here, there, energy, moved = 0.0, 0.0, 0.0, 0.0
    for chunk, found in zip(chunks, scales, strict=True):
        groups = grouped(chunk, scheme) / unit
        stored, wanted = Scales(found.scale.float() / unit, found.zero_point), minmax_scales(groups, scheme)
        here += _sum(losses(groups, stored, scheme))
        there += _sum(losses(groups, wanted, scheme))
        squares = groups.square().sum(-1)
        energy += _sum(squares)
        moved += _sum(squares[(stored.scale - wanted.scale.float()).abs() > _MOVED * wanted.scale.float().abs()])
    return here <= _ALLOWED_LOSS * there and moved <= _ALLOWED_SHARE * energy


def lost_rows(matrix: Tensor, scheme: Scheme) -> int:
    """The number of rows of a matrix [rows, columns] that are lost because of the range of the numbers that `scheme` stores.

    A row is lost if its squared error is more than half of its squares and more than four times its error in the row's own best unit. The
    errors of a few such rows may be invisible in the whole matrix, but a following normalization makes them large.
    """
    if scheme.is_float:
        return 0 if FLOAT_DTYPES[scheme.format] != torch.float16 else _count_lost(matrix, matrix.half().float() - matrix)
    lost = 0
    for chunk in torch.split(matrix, max(1, _CHUNK // matrix.shape[1])):
        groups = grouped(chunk, scheme)
        found = minmax_scales(groups, scheme)
        if _are_fine(groups, found):
            continue
        exponents = torch.frexp(chunk.abs().amax(1)).exponent - _TOP
        unit = torch.ldexp(torch.ones(len(chunk), device=chunk.device), exponents.clamp(-_MOST_EXPONENT, _MOST_EXPONENT)).view(-1, 1)
        groups = groups / unit.unsqueeze(-1)
        wanted = losses(groups, minmax_scales(groups, scheme), scheme).sum(1)
        here = losses(groups, Scales(found.scale.float() / unit, found.zero_point), scheme).sum(1)
        lost += int((chunk.any(1) & (here > _ALLOWED_LOSS * wanted) & (here > _LOST * groups.square().sum((1, 2)))).sum())
    return lost


def _count_lost(matrix: Tensor, errors: Tensor) -> int:
    largest = matrix.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return int(((errors / largest).square().sum(1) > _LOST * (matrix / largest).square().sum(1)).sum())


def _float16_loss(matrix: Tensor) -> float:
    """The squared error of rounding to fp16, relative to the squares of the values; infinite if a value exceeds 65504."""
    largest = matrix.abs().max()
    if not bool(largest > 0):
        return 0.0
    squares, errors = (matrix / largest).square(), ((matrix.half().float() - matrix) / largest).square()
    return _sum(errors) / _sum(squares)


def _are_fine(groups: Tensor, scales: Scales) -> bool:
    """Whether the scales of all nonzero groups are far from zero."""
    return not bool((groups.any(-1) & (scales.scale.float().abs() < _FINE_SCALE)).any())


def _sum(tensor: Tensor) -> float:
    return float(tensor.sum(dtype=torch.float64))


def _clamped(exponent: int) -> int:
    """An exponent clamped so that its power of two and the inverse are float32 numbers."""
    return min(max(exponent, -_MOST_EXPONENT), _MOST_EXPONENT)
