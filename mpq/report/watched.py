"""The page of a monitor's log: what has drifted, since when, and how the reference agrees. No torch."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mpq.evidence.drift import ALPHA, FEWEST, Alarm, Comparison, alarms_of, compared_in, mean_in, samples_of
from mpq.records.baseline import Baseline
from mpq.records.monitor_log import Line, MeanFacts
from mpq.report.colors import HEAT_DARK, HEAT_LIGHT
from mpq.report.render import environment, with_footnote
from mpq.report.watched_plot import watched_plot


@dataclass(frozen=True)
class LineRow:
    """A line of the log: when it was written, what it saw, its most drifted tensor, and the samples that drift is judged by."""

    time: str
    calls: int
    sampled: int
    worst: Comparison | None
    samples: int
    alarms: tuple[Alarm, ...]
    divergence: tuple[float, float, float] | None
    agreement: tuple[float, float, float] | None


def render_log(name: str, lines: Sequence[Line], baseline: Baseline) -> str:
    """The report of a log as one HTML document.

    Args:
        name: of the log's file.
        lines: at least one.
        baseline: what the lines are compared with.
    """
    rows = [_row(line, baseline) for line in lines]
    ratios = [None if row.worst is None else row.worst.ratio for row in rows]
    context: dict[str, Any] = {
        "title": name,
        "rows": rows,
        "last": rows[-1],
        "tensors": compared_in(lines[-1], baseline),
        "kernels": lines[-1].kernels,
        "fallbacks": {each.layer: each for each in lines[-1].fallbacks},
        "plots": [plot for frame in ("wide", "narrow") if (plot := watched_plot(ratios, frame)) is not None],
        "first_alarm": next((row for row in rows if row.alarms), None),
        "fewest": FEWEST,
        "light": (),
        "dark": (),
        "heat_light": HEAT_LIGHT,
        "heat_dark": HEAT_DARK,
    }
    return with_footnote(environment().get_template("watched.html.j2").render(context))


def _row(line: Line, baseline: Baseline) -> LineRow:
    tensors = compared_in(line, baseline)
    judged = [row for row in tensors if row.ratio is not None]
    return LineRow(
        datetime.datetime.fromtimestamp(line.time, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M:%S"),
        line.calls,
        line.sampled,
        max(judged, key=lambda row: row.ratio or 0.0, default=None),
        samples_of(tensors),
        tuple(alarms_of(line, baseline)),
        _bounds(line.divergence),
        _bounds(line.agreement),
    )


def _bounds(facts: MeanFacts) -> tuple[float, float, float] | None:
    """Mean, lower and upper bound; None if there is no value."""
    mean = mean_in(facts)
    return (mean.mean, *mean.bounds(ALPHA)) if facts.count else None
