"""Sketches in the header of an artifact, 360 characters each, so that their bytes are known before any data is seen. No torch.

A row of 288 bytes: the range as two float32 numbers, the samples and the values that are not finite as uint64, the noise as float32, and
the 129 counts as 16 bits, 5 of them an exponent: exact up to 2,047, else within 0.05%. Rows are in the order of `MODEL`, then of layers.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from mpq.reading.documents import Document
from mpq.reading.fields import Name
from mpq.records.sketch import BINS, Sketch

INPUT, OUTPUT, ENTROPY, MARGIN = "input", "output", "output entropy", "output margin"
"""Names of the sketches of a model; those of its layers are "LAYER.input"."""
MODEL = (INPUT, OUTPUT, ENTROPY, MARGIN)
MOST_LAYERS = 8
"""Layers that are watched unless others are named."""
_PROGRAMS = ("export", "torchscript")
_FACTS = struct.Struct("<ffQQf")
_ROW = 288
_CHARACTERS = _ROW // 4 * 5
_MANTISSA = 11  # bits
_MOST = ((1 << _MANTISSA) - 1) << 31  # the largest count that 16 bits hold


class StoredFacts(Struct):
    """Sketches in the header of an artifact."""

    layers: list[Name]
    data: Annotated[str, Meta(max_length=1 << 22)]


@dataclass(frozen=True)
class StoredSketches:
    """Sketches of the calibration data.

    Args:
        layers: names of the layers whose inputs are watched.
        rows: the sketch and the noise (see `Baseline`) of each of `MODEL`, then of each layer; a sketch without samples was not seen.
    """

    layers: tuple[str, ...]
    rows: tuple[tuple[Sketch, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        data = b"".join(_row(sketch, noise) for sketch, noise in self.rows)
        return {"layers": list(self.layers), "data": base64.b85encode(data).decode()}


def watched_layers(layers: Sequence[str], kind: object) -> tuple[str, ...]:
    """Up to eight of the layers, evenly spaced; none of a model of a kind whose modules are not called, which nothing can watch."""
    steps = 0 if kind in _PROGRAMS else min(MOST_LAYERS, len(layers))
    return tuple(layers[(2 * step + 1) * len(layers) // (2 * steps)] for step in range(steps))


def sketch_bytes(layers: Sequence[str] | None) -> int:
    """What the sketches add to the header of an artifact, in bytes; None if there are none. The header holds JSON inside of JSON."""
    if layers is None:
        return 0
    facts = {"layers": list(layers), "data": "0" * _CHARACTERS * (len(MODEL) + len(layers))}
    text = json.dumps({"sketches": facts}, separators=(",", ":"), ensure_ascii=False)[1:-1] + ","
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def stored_in(document: Document, facts: StoredFacts, layers: Collection[str]) -> StoredSketches:
    """The sketches of a header, whose layers these are.

    Raises:
        MpqError: of the document's type, if they are damaged.
    """
    try:
        data = base64.b85decode(facts.data)
    except ValueError:
        data = b""
    rows = [data[first : first + _ROW] for first in range(0, len(data), _ROW)]
    unknown = not set(facts.layers) <= set(layers)
    if unknown or len(data) != _ROW * (len(MODEL) + len(facts.layers)) or not all(map(_is_row, rows)):
        raise document.refuse(f"its sketches are damaged: {document.remedy}", "sketches")
    return StoredSketches(tuple(facts.layers), tuple(map(_read, rows)))


def _row(sketch: Sketch, noise: float) -> bytes:
    seen = sketch.values > 0
    low, high = (sketch.minimum, sketch.maximum) if seen else (0.0, 0.0)
    facts = _FACTS.pack(low, high, sketch.samples, sketch.not_finite, noise)
    return (facts + _short(sketch.counts).tobytes()).ljust(_ROW, b"\0")


def _is_row(row: bytes) -> bool:
    low, high, *_, noise = _FACTS.unpack_from(row)
    return math.isfinite(low) and math.isfinite(high) and low <= high and math.isfinite(noise) and noise >= 0


def _read(row: bytes) -> tuple[Sketch, float]:
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
