"""The page of a monitor's log: what has drifted, since when, and how the reference agrees. No torch."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mpq.evidence.drift import ALPHA, FEWEST, Alarm, alarms_of, drift_limit, stability_index
from mpq.evidence.running_mean import RunningMean
from mpq.records.baseline import Baseline
from mpq.records.monitor_log import Line, MeanFacts
from mpq.records.sketch import sketch_in
from mpq.report.colors import HEAT_DARK, HEAT_LIGHT
from mpq.report.render import environment, with_footnote
from mpq.report.watched_plot import watched_plot


@dataclass(frozen=True)
class TensorRow:
    """A tensor in a line: its samples, stability index, limit, share of values beyond the range, and values that are not finite."""

    name: str
    samples: int
    index: float | None
    limit: float | None
    beyond: float | None
    not_finite: int

    @property
    def ratio(self) -> float | None:
        """The index over its limit; None with fewer than 50 samples, or if the baseline has no such tensor."""
        return None if self.index is None or self.limit is None or self.samples < FEWEST else self.index / self.limit


@dataclass(frozen=True)
class LineRow:
    """A line of the log: when it was written, what it saw, and its most drifted tensor."""

    time: str
    calls: int
    sampled: int
    worst: TensorRow | None
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
        "tensors": list(tensor_rows(lines[-1], baseline)),
        "plots": [plot for frame in ("wide", "narrow") if (plot := watched_plot(ratios, frame)) is not None],
        "first_alarm": next((row for row in rows if row.alarms), None),
        "fewest": FEWEST,
        "light": (),
        "dark": (),
        "heat_light": HEAT_LIGHT,
        "heat_dark": HEAT_DARK,
    }
    return with_footnote(environment().get_template("watched.html.j2").render(context))


def tensor_rows(line: Line, baseline: Baseline) -> Iterator[TensorRow]:
    """The tensors of a line, in their order."""
    for name, facts in line.tensors.items():
        found, wanted = sketch_in(facts), baseline.tensors.get(name)
        if wanted is None or not found.samples:
            yield TensorRow(name, found.samples, None, None, None, found.not_finite)
        else:
            limit = drift_limit(baseline, name, found.samples)
            yield TensorRow(name, found.samples, stability_index(wanted, found), limit, found.beyond(wanted), found.not_finite)


def _row(line: Line, baseline: Baseline) -> LineRow:
    judged = [row for row in tensor_rows(line, baseline) if row.ratio is not None]
    return LineRow(
        datetime.datetime.fromtimestamp(line.time, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M:%S"),
        line.calls,
        line.sampled,
        max(judged, key=lambda row: row.ratio or 0.0, default=None),
        tuple(alarms_of(line, baseline)),
        _bounds(line.divergence),
        _bounds(line.agreement),
    )


def _bounds(facts: MeanFacts) -> tuple[float, float, float] | None:
    """Mean, lower and upper bound; None if there is no value."""
    mean = RunningMean(facts.most, facts.count, facts.total, facts.spread)
    return (mean.mean, *mean.bounds(ALPHA)) if facts.count else None
