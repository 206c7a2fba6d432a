"""Integers: int2 to int8, whole numbers times a scale, symmetric or with a zero point.

A symmetric code minus its middle is in -2**(b-1) .. 2**(b-1)-1, with one more value below zero than above. So the scale search tries scales
of both signs, and the scale that uses all codes.
"""

from __future__ import annotations

from mpq.formats.base import Format

_CLIPPING = {2: (0.25, 36), 3: (0.35, 32), 4: (0.45, 28), 5: (0.6, 20), 6: (0.7, 14), 7: (0.8, 10), 8: (0.86, 8)}  # lowest share, steps


def _shares(bits: int) -> list[float]:
    """Shares of the range that a scale may cover, largest first, except the whole range."""
    lowest, steps = _CLIPPING[bits]
    return [1 - (1 - lowest) * step / steps for step in range(1, steps + 1)]


def _signed(bits: int) -> tuple[float, ...]:
    fullest = (2 ** (bits - 1) - 1) / 2 ** (bits - 1)
    shares = sorted({1.0, fullest, *_shares(bits)}, reverse=True)
    return tuple(sign * share for share in shares for sign in (1, -1) if sign * share != 1.0)


def _integers(bits: int) -> Format:
    return Format(
        f"int{bits}",
        bits,
        "integers",
        f"{2**bits} whole numbers",
        clip_ratios=_signed(bits),
        range_clips=tuple(pair for share in _shares(bits) for pair in ((share, share), (share, 1.0), (1.0, share))),
    )


FORMATS = tuple(_integers(bits) for bits in range(2, 9))
