"""The plot of bits and bytes: one column per layer in model order, colored by scheme. The page's script changes the same columns."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mpq.report.frontier_plot import Frame
from mpq.report.rows import Facts
from mpq.report.scale import Tick
from mpq.report.words import size

_BITS, _GAP, _BYTES = 190, 34, 90


@dataclass(frozen=True)
class Column:
    """One layer: its place, and the heights of its bits and its bytes."""

    x: float
    bits: float
    bytes: float
    scheme: int


@dataclass(frozen=True)
class BarsPlot:
    """Everything that the template and the script draw.

    Args:
        frame: size of the plot.
        width: of a column.
        bits_floor: baseline of the bits.
        bytes_floor: baseline of the bytes.
        per_bit: height of one bit.
        per_byte: height of one byte.
        bits_ticks: ticks of the upper part.
        bytes_ticks: ticks of the lower part.
        columns: one per layer.
    """

    frame: Frame
    width: float
    bits_floor: float
    bytes_floor: float
    per_bit: float
    per_byte: float
    bits_ticks: list[Tick]
    bytes_ticks: list[Tick]
    columns: list[Column]


def bars_plot(facts: Facts, name: str) -> BarsPlot | None:
    """Lay out the plot, "wide" or "narrow"; None if no scheme is known."""
    rows = [row for row in facts.rows if row.scheme is not None]
    if not rows:
        return None
    wide = name == "wide"
    frame = Frame(
        name, 920 if wide else 340, 12 + _BITS + _GAP + _BYTES + 24, left=56 if wide else 46, right=14 if wide else 10, top=12, bottom=24
    )
    step = (frame.width - frame.left - frame.right) / len(rows)
    most_bits = max(scheme.rate for scheme in facts.schemes) + 1
    most_bytes = max(
        [row.bytes or 0 for row in rows] + [cell.bytes for row in rows for cell in row.cells if cell and cell.bytes * 8 < 9 * row.weights]
    )
    per_bit, per_byte = _BITS / most_bits, _BYTES / most_bytes
    bits_floor, bytes_floor = frame.top + _BITS, frame.top + _BITS + _GAP + _BYTES
    columns = [
        Column(
            round(frame.left + step * index, 2),
            round((row.bits or 0) * per_bit, 1),
            round((row.bytes or 0) * per_byte, 1),
            row.scheme or 0,
        )
        for index, row in enumerate(rows)
    ]
    bits_ticks = [Tick(round(bits_floor - bits * per_bit, 1), str(bits)) for bits in _round_bits(most_bits)]
    bytes_ticks = [Tick(round(bytes_floor - part * per_byte, 1), size(part)) for part in _round_sizes(most_bytes)]
    gap = min(2.0, step * 0.2)
    return BarsPlot(frame, round(step - gap, 2), bits_floor, bytes_floor, per_bit, per_byte, bits_ticks, bytes_ticks, columns)


def _round_bits(most: float) -> list[int]:
    step = 4 if most > 9 else 2
    return list(range(0, int(most) + 1, step))


def _round_sizes(most: int) -> list[int]:
    """Zero, and one or two round sizes below the maximum."""
    step = 10 ** math.floor(math.log10(most))
    unit = next(step * m // 10 for m in (50, 20, 10, 5) if step * m // 10 <= most * 0.75)
    return [0, *(unit * k for k in (1, 2, 3) if unit * k <= most)][:3]
