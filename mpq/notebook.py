"""How results look in a notebook: one line of facts, a line of bars, and a small table, for models of any size. No torch."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence

from mpq.shown import ZERO_MARK, ZERO_NOTE, cut, printable

ROWS = 10  # rows of a table
_BARS = 48  # characters of a sparkline
_BLOCKS = "▁▂▃▄▅▆▇█"
_CELL = 60  # characters of a cell


def sparkline(values: Sequence[float]) -> str:
    """One bar per value, scaled from the smallest to the largest; with many values, one bar for the mean of each of 48 parts.

    Values that are not finite are blank.
    """
    parts = min(len(values), _BARS)
    edges = [len(values) * part // parts for part in range(parts + 1)] if parts else []
    means = [math.fsum(values[first:last]) / (last - first) for first, last in itertools.pairwise(edges)]
    finite = [value for value in means if math.isfinite(value)]
    least, most = min(finite, default=0.0), max(finite, default=0.0)
    return "".join(_bar((value - least) / (most - least) if most > least else 0.5) if math.isfinite(value) else " " for value in means)


def _bar(share: float) -> str:
    return _BLOCKS[min(int(share * len(_BLOCKS)), len(_BLOCKS) - 1)]


def html_page(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, bars: tuple[str, str] | None = None) -> str:
    """A small table as HTML.

    Args:
        title: the facts, on one line.
        columns: heads; the first column is aligned left.
        rows: all rows; only the first ones are shown, with the number of the others.
        bars: a sparkline and its description.
    """
    parts = [f"<div><b>{_text(title, 300)}</b>"]
    if bars is not None:
        parts.append(f'<div><span style="font-family:monospace">{bars[0]}</span> <small>{_text(bars[1])}</small></div>')
    parts.append(f"<table><thead><tr>{''.join(_cell('th', name, place) for place, name in enumerate(columns))}</tr></thead><tbody>")
    for row in rows[:ROWS]:
        parts.append(f"<tr>{''.join(_cell('td', text, place) for place, text in enumerate(row))}</tr>")
    more = len(rows) - ROWS
    parts.append("</tbody></table>" + (f"<small>and {more:,} more: see .frame()</small> " if more > 0 else ""))
    zero = any(ZERO_MARK in text for row in rows[:ROWS] for text in row)
    parts.append((f"<small>{ZERO_NOTE}</small>" if zero else "") + "</div>")
    return "".join(parts)


def _cell(kind: str, text: str, place: int) -> str:
    return f'<{kind} style="text-align:{"left" if place == 0 else "right"}">{_text(text)}</{kind}>'


def _text(text: str, most: int = _CELL) -> str:
    return html.escape(cut(printable(text), most))
