"""The plot of a training: the error on the samples that it learned from, and on those kept aside, by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mpq.records.recovery_lines import Evaluated
from mpq.report.frontier_plot import NARROW, WIDE, Frame
from mpq.report.scale import Scale, Tick, decade_ticks, log_range, path_through

_TICKS = 5


@dataclass(frozen=True)
class TrainingPlot:
    """Everything that the template draws.

    Args:
        frame: size of the plot.
        x_ticks: at steps.
        y_ticks: at errors.
        loss: path of the error while training.
        aside: path of the error on the samples kept aside.
        best: the least of these, which was kept.
    """

    frame: Frame
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    loss: str
    aside: str
    best: tuple[float, float]


def training_plot(lines: Sequence[Evaluated], name: str) -> TrainingPlot | None:
    """Lay out the plot, "wide" or "narrow"; None where there are fewer than two evaluations."""
    if len(lines) < 2:
        return None
    frame = WIDE if name == "wide" else NARROW
    last = max(1, *(line.step for line in lines))
    scale = Scale(*log_range([value for line in lines for value in (line.aside, line.loss or 0.0)]), frame.height - frame.bottom, frame.top)

    def across(step: int) -> float:
        return round(frame.left + step / last * (frame.width - frame.left - frame.right), 1)

    aside = [(across(line.step), scale(line.aside)) for line in lines if line.aside > 0]
    loss = [(across(line.step), scale(line.loss)) for line in lines if line.loss is not None and line.loss > 0]
    best = min(lines, key=lambda line: line.aside)
    x_ticks = [Tick(across(step), f"{step:,}") for step in _round_steps(last)]
    place = across(best.step), scale(max(best.aside, scale.low))
    return TrainingPlot(frame, x_ticks, decade_ticks(scale), path_through(loss), path_through(aside), place)


def _round_steps(last: int) -> list[int]:
    """Zero and multiples of a round number, at most six."""
    unit = 10 ** math.floor(math.log10(last))
    step = next(size for size in (unit // 5, unit // 2, unit, 2 * unit) if size and last / size <= _TICKS)
    return list(range(0, last + 1, step))
