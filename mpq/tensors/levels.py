"""Formats whose codes index a table of levels, in units of the scale; integers of 2 to 8 bits need no table.

    int1        -1 and 1
    ternary     -1, 0 and 1
    nl3 .. nl7  whole numbers -1 to 1 - 2**(1-b) through the quantile function of the normal distribution, see `_normal`
    nf4         quantiles of the normal distribution, zero among them (Dettmers et al. 2023, QLoRA)
    fp4-e2m1    0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives; codes are the bit patterns (OCP Microscaling 1.0)
    mxfp4       the same under a power of two per 32 weights, stored as an exponent (e8m0)
    fp8-e4m3    codes are the bit patterns; levels are those of the format over 2**8, so that fp16 scales stay normal numbers
    fp8-e5m2    the same over 2**15

While a weight is worked on, a "code" of such a format is its level and its zero point is 0, so that (code - zero) * scale holds for every
format; `to_codes` gives what is stored.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from mpq.schemes import NORMAL_FORMATS, Scheme

_NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
_NORMAL_SHARE = 0.85
_CELLS = 8192  # on each side of zero, up to the outermost normal level
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


class Levels(NamedTuple):
    """The levels of a format.

    Args:
        table: level by code; NaN for codes that are never used.
        ascending: the distinct levels in order.
        codes: the code of each of them, uint8.
        bounds: the middles between neighbours.
    """

    table: Tensor
    ascending: Tensor
    codes: Tensor
    bounds: Tensor


@lru_cache(maxsize=16)
def levels_of(format_name: str) -> Levels:
    """The levels of a format of `LEVEL_FORMATS`."""
    table = _table(format_name)
    usable = table.isfinite() & ~((table == 0) & table.signbit())
    ascending, order = table[usable].sort()
    codes = usable.nonzero().flatten()[order].byte()
    return Levels(table, ascending, codes, (ascending[1:] + ascending[:-1]) / 2)


def nearest_level(values: Tensor, scheme: Scheme) -> Tensor:
    """The nearest level of each value."""
    if scheme.format in NORMAL_FORMATS:
        cells = values.mul(_CELLS).add_(_CELLS).clamp_(0, 2 * _CELLS - 1).int().clamp_(min=0)  # twice, for not a number is a number then
        return _by_cell(scheme.format).to(values.device).index_select(0, cells.flatten()).view(values.shape)
    levels = levels_of(scheme.format)
    return levels.ascending.to(values.device)[_positions(values, levels)]


@lru_cache(maxsize=8)
def _by_cell(format_name: str) -> Tensor:
    """The nearest level by equal cells from -1 to 1: each middle between levels is off by half a cell at most; 7 times as fast."""
    middles = (torch.arange(2 * _CELLS, dtype=torch.float64) + 0.5) / _CELLS - 1
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
    """The float32 powers of two that `to_exponents` encoded."""
    return torch.ldexp(torch.ones_like(codes, dtype=torch.float32), codes.int() - 127)


def power_of_two(scale: Tensor) -> Tensor:
    """The nearest power of two to each magnitude, by difference; 1 for zero."""
    mantissa, exponent = torch.frexp(scale.float().abs())
    exponent = torch.where(mantissa >= 0.75, exponent, exponent - 1).clamp(-60, 60)
    return torch.where(mantissa > 0, torch.ldexp(torch.ones_like(mantissa), exponent), 1.0)


def _positions(values: Tensor, levels: Levels) -> Tensor:
    return torch.bucketize(values.contiguous(), levels.bounds.to(values.device), out_int32=True)


def _table(format_name: str) -> Tensor:
    if format_name == "int1":
        return torch.tensor([-1.0, 1.0])
    if format_name == "ternary":
        return torch.tensor([-1.0, 0.0, 1.0])
    if format_name in NORMAL_FORMATS:
        return torch.tensor(_normal(NORMAL_FORMATS[format_name]))
    if format_name == "nf4":
        return torch.tensor(_NF4)
    if format_name in ("fp4-e2m1", "mxfp4"):
        positive = torch.tensor(_E2M1)
        return torch.cat([positive, -positive])
    patterns = torch.arange(256, dtype=torch.int32).byte()
    if format_name == "fp8-e4m3":
        return patterns.view(torch.float8_e4m3fn).float() / 2**8
    return patterns.view(torch.float8_e5m2).float() / 2**15


def _normal(bits: int) -> list[float]:
    """Levels spaced so that normal weights under the best scale of their group lose least, nearly: zero among them, the lowest one -1.

    Lloyd's algorithm on groups of 32 to 64 of them gives levels that lie closer around zero, less so the smaller the groups.
    Quantiles within a central share of the normal distribution are nearly as good, and the share is their only parameter.
    """
    half = 2 ** (bits - 1)
    quantile = NormalDist().inv_cdf
    outermost = quantile((1 + _NORMAL_SHARE) / 2)
    return [round(quantile((1 + _NORMAL_SHARE * (code - half) / half) / 2) / outermost, 6) for code in range(2 * half)]
