"""The plot of a monitor's log: how near the limit the most drifted tensor is, by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpq.report.frontier_plot import NARROW, WIDE, Frame
from mpq.report.scale import Scale, Tick, decade_ticks, log_range, path_through

_TICKS = 6


@dataclass(frozen=True)
class WatchedPlot:
    """Everything that the template draws.

    Args:
        frame: size of the plot.
        x_ticks: at lines of the log.
        y_ticks: at multiples of the limit.
        path: of the largest stability index over its limit, by line.
        limit: where a tensor counts as drifted.
    """

    frame: Frame
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    path: str
    limit: float


def watched_plot(ratios: Sequence[float | None], name: str) -> WatchedPlot | None:
    """Lay out the plot, "wide" or "narrow"; None where fewer than two lines have enough samples."""
    known = [(number, ratio) for number, ratio in enumerate(ratios, start=1) if ratio is not None and ratio > 0]
    if len(known) < 2:
        return None
    frame = WIDE if name == "wide" else NARROW
    scale = Scale(*log_range([1.0, *(ratio for _, ratio in known)]), frame.height - frame.bottom, frame.top)
    step = (frame.width - frame.left - frame.right) / max(1, len(ratios) - 1)

    def across(number: int) -> float:
        return round(frame.left + (number - 1) * step, 1)

    every = -(-len(ratios) // _TICKS)
    x_ticks = [Tick(across(number), f"{number:,}") for number in range(1, len(ratios) + 1, every)]
    points = [(across(number), scale(ratio)) for number, ratio in known]
    return WatchedPlot(frame, x_ticks, decade_ticks(scale), path_through(points), scale(1.0))
