"""Levels spaced like normal weights: nl3 to nl7, and nf4 (Dettmers et al. 2023, QLoRA).

nl levels apply the quantile function of the normal distribution to equal steps from -1 to 1 - 2**(1-b); they include zero, and the lowest
one is -1. Lloyd's algorithm on groups of 32 to 64 normal weights under their best scale gives levels that are denser around zero, less so
for smaller groups. Quantiles within a central share of the distribution are nearly as good, and the share is their only parameter.
"""

from __future__ import annotations

from statistics import NormalDist

from mpq.formats.base import Format

_SHARE = 0.85
_CELLS = 8192  # a lookup by cells is 7 times as fast as a search
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


def _levels(bits: int) -> tuple[float, ...]:
    half = 2 ** (bits - 1)
    quantile = NormalDist().inv_cdf
    outermost = quantile((1 + _SHARE) / 2)
    return tuple(round(quantile((1 + _SHARE * (code - half) / half) / 2) / outermost, 6) for code in range(2 * half))


def _normal(bits: int) -> Format:
    return Format(
        f"nl{bits}",
        bits,
        "levels",
        f"{2**bits} levels spaced like normal weights",
        levels=_levels(bits),
        clip_ratios=tuple(sign * (1.05 - 0.025 * step) for step in range(22) for sign in (1, -1)),
        cells=_CELLS,
    )


FORMATS = (
    *(_normal(bits) for bits in range(3, 8)),
    Format(
        "nf4",
        4,
        "levels",
        "16 quantiles of the normal distribution, as in QLoRA",
        levels=_NF4,
        clip_ratios=tuple(sign * (1 - 0.0225 * step) for step in range(25) for sign in (1, -1)),
    ),
)
