"""Levels: formats whose codes index a table, in units of the scale; `formats/` has the tables. Integers of 2 to 8 bits need none.

While a weight is processed, a "code" of such a format is its level and its zero point is 0, so that (code - zero) * scale holds for every
format; `to_codes` gives the stored codes.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from mpq.formats.registry import formats
from mpq.formats.scheme import Scheme


class Levels(NamedTuple):
    """The levels of a format.

    Args:
        table: level by code; NaN for codes that are never used.
        ascending: the distinct levels in order.
        codes: the code of each of them, uint8.
        bounds: the midpoints between neighbors.
    """

    table: Tensor
    ascending: Tensor
    codes: Tensor
    bounds: Tensor


@cache
def levels_of(format_name: str) -> Levels:
    """The levels of a format of kind "levels"."""
    table = torch.tensor(formats()[format_name].levels)
    usable = table.isfinite() & ~((table == 0) & table.signbit())
    ascending, order = table[usable].sort()
    codes = usable.nonzero().flatten()[order].byte()
    return Levels(table, ascending, codes, (ascending[1:] + ascending[:-1]) / 2)


def nearest_level(values: Tensor, scheme: Scheme) -> Tensor:
    """The nearest level of each value."""
    cells = scheme.element.cells
    if cells:
        found = (
            values.mul(cells).add_(cells).clamp_(0, 2 * cells - 1).int().clamp_(min=0)
        )  # second clamp: NaN becomes an arbitrary integer in the cast
        return _by_cell(scheme.format).to(values.device).index_select(0, found.flatten()).view(values.shape)
    levels = levels_of(scheme.format)
    return levels.ascending.to(values.device)[_positions(values, levels)]


@cache
def _by_cell(format_name: str) -> Tensor:
    """The nearest level by equal cells from -1 to 1: each midpoint is off by at most half a cell; 7 times as fast."""
    cells = formats()[format_name].cells
    middles = (torch.arange(2 * cells, dtype=torch.float64) + 0.5) / cells - 1
    levels = levels_of(format_name)
    return levels.ascending[_positions(middles.float(), levels)]


def to_codes(levels: Tensor, scheme: Scheme) -> Tensor:
    """The uint8 codes of float32 levels."""
    known = levels_of(scheme.format)
    return known.codes.to(levels.device)[_positions(levels, known)]


def from_codes(codes: Tensor, scheme: Scheme) -> Tensor:
    """The float32 levels of uint8 codes."""
    return levels_of(scheme.format).table.to(codes.device)[codes.int()]


def to_exponents(scale: Tensor) -> Tensor:
    """Powers of two as uint8 exponents, e8m0: 2**(code - 127)."""
    return (torch.frexp(scale.float()).exponent + 126).byte()


def from_exponents(codes: Tensor) -> Tensor:
    """The inverse of `to_exponents`."""
    return torch.ldexp(torch.ones_like(codes, dtype=torch.float32), codes.int() - 127)


def power_of_two(scale: Tensor) -> Tensor:
    """The power of two nearest to each magnitude, by difference; 1 for zero."""
    mantissa, exponent = torch.frexp(scale.float().abs())
    exponent = torch.where(mantissa >= 0.75, exponent, exponent - 1).clamp(-60, 60)
    return torch.where(mantissa > 0, torch.ldexp(torch.ones_like(mantissa), exponent), 1.0)


def _positions(values: Tensor, levels: Levels) -> Tensor:
    return torch.bucketize(values.contiguous(), levels.bounds.to(values.device), out_int32=True)
