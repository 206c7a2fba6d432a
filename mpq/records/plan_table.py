"""The layers of a plan as a table: for pandas, and for notebooks. No torch."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from mpq.formats.scheme import Scheme
from mpq.notebook import html_page, sparkline
from mpq.shown import bits_cell


def layer_rows(layers: Mapping[str, Scheme], shapes: Mapping[str, tuple[int, int]], pinned: Container[str]) -> list[dict[str, Any]]:
    """One row per layer, in model order: layer, scheme, rows, columns, weights, bytes, effective_bits, pinned."""
    found = []
    for name, scheme in layers.items():
        rows, columns = shapes[name]
        bits = scheme.stored_bits((rows, columns))
        sizes = {"weights": rows * columns, "bytes": bits // 8, "effective_bits": bits / (rows * columns)}
        found.append({"layer": name, "scheme": str(scheme), "rows": rows, "columns": columns, **sizes, "pinned": name in pinned})
    return found


def layers_page(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """HTML: the title, the bits of all layers as bars, and the layers of most bytes."""
    bars = sparkline([row["effective_bits"] for row in rows]), "bits per weight by layer, in model order"
    largest = sorted(rows, key=lambda row: -row["bytes"])
    cells = [[row["layer"], row["scheme"], bits_cell(row["effective_bits"]), f"{row['bytes']:,}"] for row in largest]
    return html_page(title, ["largest layers", "scheme", "bits per weight", "bytes"], cells, bars=bars)
