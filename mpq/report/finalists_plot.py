"""The plot of finalists: predicted and measured values with standard errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mpq.report.frontier_plot import Frame, finalist_kind, is_uniform
from mpq.report.report_input import Subject
from mpq.report.scale import Scale, Tick, decade_ticks, log_range
from mpq.shown import bits_text

_ROW, _SERIES = 58, ("predicted", "calibration", "held_out")


@dataclass(frozen=True)
class Dot:
    """One value of a finalist; `low` and `high` are the ends of its standard error, None without one."""

    series: str
    x: float
    y: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Lane:
    """One finalist."""

    name: str
    kind: str
    bits: str
    y: float
    dots: list[Dot]


@dataclass(frozen=True)
class FinalistsPlot:
    """Everything that the template draws."""

    frame: Frame
    x_ticks: list[Tick]
    lanes: list[Lane]


def finalists_plot(subject: Subject, name: str) -> FinalistsPlot | None:
    """Lay out the plot, "wide" or "narrow"; None if the plan has no measured finalists."""
    rows = list(subject.evidence.get("finalists", ()))
    if not rows:
        return None
    wide = name == "wide"
    frame = Frame(name, 920 if wide else 340, 30 + _ROW * len(rows) + 24, left=250 if wide else 10, right=16, top=8, bottom=42)
    ends = [value for row in rows for series in _SERIES for value in _interval(row, series)]
    scale = Scale(*log_range(ends, decades=4), frame.left, frame.width - frame.right)
    lanes = [_lane(subject, row, scale, frame.top + _ROW * (number + 0.5)) for number, row in enumerate(rows)]
    ticks = decade_ticks(scale)
    return FinalistsPlot(frame, ticks, lanes)


def _interval(row: dict[str, Any], series: str) -> list[float]:
    value, stderr = row.get(series), row.get(f"{series}_stderr") or 0.0
    return [] if value is None else [value, value + stderr, *([value - stderr] if value > stderr else [])]


def _lane(subject: Subject, row: dict[str, Any], scale: Scale, y: float) -> Lane:
    dots = []
    for number, series in enumerate(_SERIES):
        value, stderr = row.get(series), row.get(f"{series}_stderr")
        if value is None or value <= 0:
            continue
        low, high = (None, None) if not stderr else (scale(max(value - stderr, scale.low)), scale(value + stderr))
        dots.append(Dot(series, scale(value), y + 13 * (number - 1) + 6, low, high))
    name = f"uniform {row['name']}" if is_uniform(subject, row) else str(row["name"])
    return Lane(name, finalist_kind(subject, row), bits_text(row["effective_bits"]), y, dots)
