"""Coordinate descent on the output error: sets each code and each scale in turn to its best value while all others are fixed.

The error of a row, e H e^T with e = w - (code - zero) * scale, is quadratic in every code and in every scale. The best code is the one
nearest to code + (H e)_j / (H_jj * scale). The best scale is scale + (c H e) / (c H c), with c the steps of its group, rounded to a
storable value. Rounding the minimum of a one-dimensional quadratic to the nearest grid point is optimal, so no step increases the error
(normal levels are found to within half a cell of `levels.py`). Descent on codes: QuantEase (Behdin et al. 2023); fitting a scale to given
codes in the metric of H: like the scale refits after GPTQ.

Columns are processed in blocks. H e of a whole group is one matrix product. Within a block, each column adds the effect of the previous
columns' changes with one vector product, so a column costs five short calls for any number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.tensors.levels import nearest_level
from mpq.tensors.scales import LARGEST_SCALE, SMALLEST_SCALE, storable

BLOCK = 32


@dataclass(frozen=True, eq=False)
class State:
    """A weight while it is quantized; changed in place.

    Args:
        codes: float32 [blocks, columns, rows], integers or levels.
        scale: float32 [blocks, groups, rows], storable values.
        zero: float32 [blocks, groups, rows], integers.
        size: columns per group.
        exponents: float32 [blocks, 1, rows] for 8-bit scales, see `tensors/small_scales.py`; else None.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    size: int
    exponents: Tensor | None = None

    def values(self) -> Tensor:
        """The dequantized weights, [blocks, columns, rows]."""
        return (self.codes - self.by_column(self.zero)).mul_(self.by_column(self.scale))

    def by_column(self, values: Tensor) -> Tensor:
        """The value of each column's group, [blocks, columns, rows], from those of the groups."""
        return values.repeat_interleave(self.size, dim=1)[:, : self.codes.shape[1]]


def step_bounds(zero: Tensor, scheme: Scheme) -> tuple[Any, Any]:
    """The smallest and largest step (code minus zero point) of integer codes: numbers, or tensors like `zero`."""
    if scheme.symmetric:
        return -(2 ** (scheme.bits - 1)), 2 ** (scheme.bits - 1) - 1
    return -zero, 2**scheme.bits - 1 - zero


def nearest_steps(values: Tensor, bounds: tuple[Any, Any], scheme: Scheme) -> Tensor:
    """The nearest steps, or levels, of values in units of the scale, in place."""
    return values.round_().clamp_(*bounds) if scheme.is_integer else values.copy_(nearest_level(values, scheme))


def descend(weights: Tensor, state: State, hessian: Tensor, scheme: Scheme, *, sweeps: int, codes: bool = True) -> None:
    """Reduce the error of `state` in place, by `sweeps` over all columns and groups; the scales of a coded scheme do not change.

    Args:
        weights: [blocks, columns, rows].
        state: codes and scales to start from.
        hessian: [blocks, columns, columns], with a positive diagonal.
        scheme: defines the possible codes and scales.
        sweeps: passes over all columns.
        codes: False keeps the codes and fits only the scales.
    """
    error = weights - state.values()
    for _ in range(sweeps):
        for group in range(state.scale.shape[1]):
            columns = slice(group * state.size, min((group + 1) * state.size, weights.shape[1]))
            _sweep_group(error, state, hessian, group, columns, scheme, codes=codes)


def _sweep_group(error: Tensor, state: State, hessian: Tensor, group: int, columns: slice, scheme: Scheme, *, codes: bool) -> None:
    """The best code for each column of one group in turn, then the best scale for each row."""
    within, zero, scale = hessian[:, columns, columns], state.zero[:, group, None], state.scale[:, group, None]
    gradient = hessian[:, columns] @ error
    steps = state.codes[:, columns] - zero
    if codes:
        bounds = step_bounds(zero, scheme)
        for first in range(0, steps.shape[1], BLOCK):
            block = slice(first, min(first + BLOCK, steps.shape[1]))
            change = _sweep_block(gradient[:, block], steps[:, block], within[:, block, block], scale, bounds, scheme)
            error[:, columns][:, block] -= change
            gradient.baddbmm_(within[:, :, block], change, alpha=-1)
        torch.add(steps, zero, out=state.codes[:, columns])
    if not scheme.is_coded:  # whose rows share one step
        _fit_scale(error[:, columns], gradient, steps, state, within, group, scheme)


def _sweep_block(gradient: Tensor, steps: Tensor, within: Tensor, scale: Tensor, bounds: tuple[Any, Any], scheme: Scheme) -> Tensor:
    """Set the best step for each column of a block in turn, in place; returns the change of the weights, [blocks, columns, rows].

    In units of the scale, with each row of H divided by its diagonal, the target of a column is its step plus its gradient.
    """
    diagonal = within.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    wanted = (gradient / diagonal).div_(scale).add_(steps)
    moved = torch.empty_like(wanted)
    views = zip(*(torch.split(each, 1, 1) for each in (wanted, steps, moved, within / diagonal)), strict=True)
    for at, (column, now, move, coupling) in enumerate(views):
        if at:
            column.baddbmm_(coupling.narrow(2, 0, at), moved.narrow(1, 0, at), alpha=-1)
        torch.sub(nearest_steps(column, bounds, scheme), now, out=move)
    steps.copy_(wanted)
    return moved.mul_(scale)


def _fit_scale(error: Tensor, gradient: Tensor, steps: Tensor, state: State, within: Tensor, group: int, scheme: Scheme) -> None:
    """The best scale of one group for each row; `error` and `gradient` are for its columns."""
    gain = (steps * gradient).sum(1)
    norm = (steps * (within @ steps)).sum(1)
    old = state.scale[:, group]
    fitted = torch.where(norm > 0, old + gain / norm.clamp(min=1e-30), old).clamp_(-LARGEST_SCALE, LARGEST_SCALE)
    allowed = (fitted if scheme.element.exponent_scales else fitted.abs()) >= SMALLEST_SCALE
    new = torch.where(allowed, storable(fitted, scheme, None if state.exponents is None else state.exponents[:, 0]).float(), old)
    error -= steps * (new - old)[:, None]
    state.scale[:, group] = new
