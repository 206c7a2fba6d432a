"""Coordinate descent on the output error: codes one by one, scales one by one, each to its best value while all others stay.

The error of a row, e H e^T with e = w - (code - zero) * scale, is quadratic in every code and in every scale. The best value of a code is
the nearest to code + (H e)_j / (H_jj * scale), that of a scale is scale + (c H e) / (c H c) with c the steps of its group, rounded to
what is stored; rounding a one-dimensional quadratic to the nearest grid point is exact, so no step makes the error larger (normal levels
are found to within half a cell of `levels.py`). Codes by descent: QuantEase (Behdin et al. 2023); a scale fitted to given codes in the
metric of H: as in the scale refits after GPTQ. Blocks of columns keep the work in matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.tensors.scales import LARGEST_SCALE, SMALLEST_SCALE, nearest_codes, storable

_BLOCK = 64


@dataclass(frozen=True, eq=False)
class State:
    """A weight in the course of being quantized; changed in place.

    Args:
        codes: float32 [blocks, columns, rows], whole numbers or levels.
        scale: float32 [blocks, groups, rows], such as can be stored.
        zero: float32 [blocks, groups, rows], whole numbers.
        size: columns of a group.
        exponents: float32 [blocks, 1, rows] of scales in 8 bits, see `tensors/small_scales.py`; else None.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    size: int
    exponents: Tensor | None = None

    def values(self) -> Tensor:
        """The weights that the codes stand for, [blocks, columns, rows]."""
        columns = self.codes.shape[1]
        scale, zero = (one.repeat_interleave(self.size, dim=1)[:, :columns] for one in (self.scale, self.zero))
        return (self.codes - zero).mul_(scale)


def descend(weights: Tensor, state: State, hessian: Tensor, scheme: Scheme, *, sweeps: int, codes: bool = True) -> None:
    """Lower the error of `state` in place, by `sweeps` over all columns and groups.

    Args:
        weights: [blocks, columns, rows].
        state: codes and scales to start from.
        hessian: [blocks, columns, columns], with a positive diagonal.
        scheme: gives the codes and the scales that there are.
        sweeps: passes over all columns.
        codes: False leaves the codes and fits the scales only.
    """
    error = weights - state.values()
    for _ in range(sweeps):
        for group in range(state.scale.shape[1]):
            first = group * state.size
            last = min(first + state.size, weights.shape[1])
            if codes:
                for start in range(first, last, _BLOCK):
                    _sweep_codes(error, state, hessian, group, slice(start, min(start + _BLOCK, last)), scheme)
            _fit_scale(error, state, hessian, group, slice(first, last), scheme)


def _sweep_codes(error: Tensor, state: State, hessian: Tensor, group: int, block: slice, scheme: Scheme) -> None:
    """The best code for each column of `block` in turn."""
    gradient = hessian[:, block] @ error
    within = hessian[:, block, block]
    diagonal = within.diagonal(dim1=-2, dim2=-1)
    scale, zero = state.scale[:, group], state.zero[:, group]
    for at in range(gradient.shape[1]):
        column = block.start + at
        old = state.codes[:, column]
        new = nearest_codes((gradient[:, at] / (diagonal[:, at, None] * scale)).add_(old).sub_(zero), zero, scheme)
        change = (new - old).mul_(scale)
        state.codes[:, column] = new
        error[:, column] -= change
        gradient[:, at + 1 :] -= within[:, at + 1 :, at, None] * change[:, None]


def _fit_scale(error: Tensor, state: State, hessian: Tensor, group: int, columns: slice, scheme: Scheme) -> None:
    """The best scale of one group for each row."""
    steps = state.codes[:, columns] - state.zero[:, group, None]
    gain = (steps * (hessian[:, columns] @ error)).sum(1)
    norm = (steps * (hessian[:, columns, columns] @ steps)).sum(1)
    old = state.scale[:, group]
    fitted = torch.where(norm > 0, old + gain / norm.clamp(min=1e-30), old).clamp_(-LARGEST_SCALE, LARGEST_SCALE)
    allowed = fitted >= SMALLEST_SCALE if scheme.element.exponent_scales else fitted.abs() >= SMALLEST_SCALE
    new = torch.where(allowed, storable(fitted, scheme, None if state.exponents is None else state.exponents[:, 0]).float(), old)
    error[:, columns] -= steps * (new - old)[:, None]
    state.scale[:, group] = new
