"""A sketch as a row of 286 bytes, whatever it holds. No torch.

The range as two float32 numbers, the samples and the values that are not finite as uint64, the noise as float32, and the 129 counts as 16
bits, 5 of them an exponent: exact up to 2,047, else within 0.05%.
"""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from mpq.records.sketch import BINS, Sketch

_FACTS = struct.Struct("<ffQQf")
_MANTISSA = 11  # bits
_MOST = ((1 << _MANTISSA) - 1) << 31  # the largest count that 16 bits hold


def row_of(sketch: Sketch, noise: float, length: int) -> bytes:
    """The row of a sketch and its noise, filled with zeros up to a length."""
    seen = sketch.values > 0
    low, high = (sketch.minimum, sketch.maximum) if seen else (0.0, 0.0)
    facts = _FACTS.pack(low, high, sketch.samples, sketch.not_finite, noise)
    return (facts + _short(sketch.counts).tobytes()).ljust(length, b"\0")


def is_row(row: bytes) -> bool:
    """Whether a row of the right length holds a range and a noise that can be."""
    low, high, *_, noise = _FACTS.unpack_from(row)
    return math.isfinite(low) and math.isfinite(high) and low <= high and math.isfinite(noise) and noise >= 0


def read_row(row: bytes) -> tuple[Sketch, float]:
    """The inverse of `row_of`."""
    low, high, samples, not_finite, noise = _FACTS.unpack_from(row)
    counts = _long(np.frombuffer(row, "<u2", BINS, _FACTS.size))
    low, high = (low, high) if counts.any() else (math.inf, -math.inf)
    return Sketch(counts, low, high, not_finite, samples), noise


def _short(counts: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Each count as an exponent above a mantissa, rounded to the nearest."""
    kept, exponent = np.minimum(counts, _MOST), np.zeros(counts.shape, np.int64)
    while (over := _halved(kept, exponent) >= 1 << _MANTISSA).any():
        exponent += over
    return (exponent << _MANTISSA | _halved(kept, exponent)).astype("<u2")


def _halved(counts: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = (counts + ((1 << times) >> 1)) >> times
    return found


def _long(short: NDArray[np.uint16]) -> NDArray[np.int64]:
    wide = short.astype(np.int64)
    return (wide & ((1 << _MANTISSA) - 1)) << (wide >> _MANTISSA)
