"""Sketches in the header of an artifact, 360 characters each, so that their bytes are known before any data is seen. No torch.

A row of 288 bytes is a sketch (`sketch_rows.py`). Rows are in the order of `MODEL`, then of layers. This file imports no numpy, since every
command opens headers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from mpq.reading.documents import Document
from mpq.reading.fields import Name

if TYPE_CHECKING:
    from mpq.records.sketch import Sketch

INPUT, OUTPUT, ENTROPY, MARGIN = "input", "output", "output entropy", "output margin"
"""Names of the sketches of a model; those of its layers are "LAYER.input"."""
MODEL = (INPUT, OUTPUT, ENTROPY, MARGIN)
MOST_LAYERS = 8
"""Layers that are watched unless others are named."""
_PROGRAMS = ("export", "torchscript")
ROW_BYTES = 288
_CHARACTERS = ROW_BYTES // 4 * 5


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
        from mpq.records.sketch_rows import row_of

        data = b"".join(row_of(sketch, noise, ROW_BYTES) for sketch, noise in self.rows)
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
    from mpq.records.sketch_rows import is_row, read_row

    try:
        data = base64.b85decode(facts.data)
    except ValueError:
        data = b""
    rows = [data[first : first + ROW_BYTES] for first in range(0, len(data), ROW_BYTES)]
    unknown = not set(facts.layers) <= set(layers)
    if unknown or len(data) != ROW_BYTES * (len(MODEL) + len(facts.layers)) or not all(map(is_row, rows)):
        raise document.refuse(f"its sketches are damaged: {document.remedy}", "sketches")
    return StoredSketches(tuple(facts.layers), tuple(map(read_row, rows)))
