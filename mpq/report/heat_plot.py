"""The heat map: what stands in each cell, and what its colors mean. The page and the picture only draw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mpq.report.rows import LEVELS, Cell, Facts
from mpq.report.words import short


class HeatRow(NamedTuple):
    """One layer: its name, a cell for each column (None where nothing was measured), and the column of its chosen scheme, if any."""

    name: str
    cells: tuple[Cell | None, ...]
    chosen: int | None


@dataclass(frozen=True)
class HeatPlot:
    """Layers by schemes.

    Args:
        columns: schemes, from few bits to many.
        rows: layers in model order.
        bounds: the errors between which each color stands, one more than there are colors; equal ratios apart. Empty without a range:
            then all cells have one color.
    """

    columns: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    bounds: tuple[float, ...]

    @property
    def key(self) -> list[tuple[int, str]]:
        """Each color and the errors that it stands for, in words; the outer ones also stand for what lies beyond them."""
        if not self.bounds:
            return []
        inner = [(level, f"{short(self.bounds[level])} to {short(self.bounds[level + 1])}") for level in range(1, LEVELS - 1)]
        return [(0, f"under {short(self.bounds[1])}"), *inner, (LEVELS - 1, f"{short(self.bounds[-2])} or more")]


def heat_plot(facts: Facts) -> HeatPlot:
    """Lay out the heat map; without columns if nothing was measured."""
    rows = tuple(
        HeatRow(
            row.name, tuple(row.cells[scheme] for scheme in facts.heat), facts.heat.index(row.scheme) if row.scheme in facts.heat else None
        )
        for row in facts.rows
    )
    return HeatPlot(tuple(str(facts.schemes[scheme]) for scheme in facts.heat), rows, _bounds(facts.least, facts.greatest))


def _bounds(least: float, greatest: float) -> tuple[float, ...]:
    if not 0 < least < greatest:
        return ()
    ratio = greatest / least
    return tuple(least * ratio ** (level / LEVELS) for level in range(LEVELS + 1))
