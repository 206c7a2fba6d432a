"""Small floating-point numbers: the codes are their bit patterns, sign first.

    fp4-e2m1             0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives (OCP Microscaling 1.0)
    fp6-e2m3             0 to 7.5: in steps of an eighth up to 2, a quarter up to 4, then a half (OCP Microscaling 1.0)
    fp8-e4m3  fp8-e5m2   as in torch (Micikevicius et al. 2022)

The levels of the 8-bit formats are divided by 2**8 and 2**15, so that fp16 scales stay normal numbers.
"""

from __future__ import annotations

import math

from mpq.formats.base import Format


def minifloat_levels(exponent_bits: int, mantissa_bits: int, *, power: int = 0) -> list[float]:
    """The value of every bit pattern, all of them finite, over 2**power; the bias is 2**(exponent_bits - 1) - 1."""
    bias, steps = 2 ** (exponent_bits - 1) - 1, 2**mantissa_bits
    positive = []
    for pattern in range(2**exponent_bits * steps):
        exponent, mantissa = divmod(pattern, steps)
        significand = mantissa + (steps if exponent else 0)  # the lowest exponent has no leading one
        positive.append(math.ldexp(significand, max(exponent, 1) - bias - mantissa_bits - power))
    return [*positive, *(-level for level in positive)]


def _without(levels: list[float], patterns: range) -> tuple[float, ...]:
    """Levels without these patterns of either sign, which are infinity or NaN."""
    half = len(levels) // 2
    return tuple(math.nan if code % half in patterns else level for code, level in enumerate(levels))


_FP8_RATIOS = tuple(1 - 0.05 * step for step in range(1, 10))

FORMATS = (
    Format(
        "fp4-e2m1",
        4,
        "levels",
        "4-bit floating point",
        levels=tuple(minifloat_levels(2, 1)),
        clip_ratios=tuple(1.05 - 0.02 * step for step in range(28)),
    ),
    Format(
        "fp6-e2m3",
        6,
        "levels",
        "6-bit floating point",
        levels=tuple(minifloat_levels(2, 3)),
        clip_ratios=tuple(1.05 - 0.025 * step for step in range(20)),
    ),
    Format(
        "fp8-e4m3",
        8,
        "levels",
        "8-bit floating point, more precision",
        levels=_without(minifloat_levels(4, 3, power=8), range(127, 128)),
        clip_ratios=_FP8_RATIOS,
    ),
    Format(
        "fp8-e5m2",
        8,
        "levels",
        "8-bit floating point, more range",
        levels=_without(minifloat_levels(5, 2, power=15), range(124, 128)),
        clip_ratios=_FP8_RATIOS,
    ),
)
