"""Times in the report: the error that plans can reach at every time, and what each layer takes by scheme."""

from __future__ import annotations

from dataclasses import dataclass

from mpq.records.time_frontier import TimeFrontier
from mpq.report.frontier_plot import NARROW, WIDE, Frame
from mpq.report.report_input import Subject
from mpq.report.scale import Scale, Tick, decade_ticks, log_range, path_through
from mpq.shown import counted

_APART = 48


@dataclass(frozen=True)
class TimesPlot:
    """Everything that the template draws.

    Args:
        frame: size of the plot.
        x_ticks: at milliseconds.
        y_ticks: at errors.
        line: path of the frontier.
        corners: its corners.
        chosen: where the plan is; None if that is not known.
    """

    frame: Frame
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    line: str
    corners: list[tuple[float, float]]
    chosen: tuple[float, float] | None


@dataclass(frozen=True)
class Timed:
    """One profile: its plots, and a row for each layer with a cell for each scheme.

    Args:
        about: runtime, machine and batch, for people.
        plots: wide and narrow.
        schemes: headings.
        rows: the layer, and for each scheme milliseconds (None where it is no candidate) and whether the plan has it.
    """

    about: str
    plots: list[TimesPlot]
    schemes: list[str]
    rows: list[tuple[str, list[tuple[float | None, bool]]]]


def timed(subject: Subject) -> list[Timed]:
    """All profiles of a report."""
    return [_timed(subject, each) for each in subject.times]


def _timed(subject: Subject, profile: TimeFrontier) -> Timed:
    facts, chosen = profile.facts, subject.schemes
    schemes = sorted({scheme for _, scheme in profile.times}, key=lambda scheme: (scheme.bits, str(scheme)))
    layers = dict.fromkeys(name for name, _ in profile.times)
    rows = [(name, [(profile.times.get((name, scheme)), chosen.get(name) == scheme) for scheme in schemes]) for name in layers]
    version = f" {facts.version}" if facts.version else ""
    integers = ", integer activations" if facts.activations else ""
    size = f"{counted(facts.threads, 'thread')}, {counted(facts.batch, 'sample')} at once"
    about = f"{facts.runtime}{version} on {facts.machine}, {size}{integers} ({profile.name})"
    return Timed(about, [_plot(profile, frame) for frame in (WIDE, NARROW)], [str(scheme) for scheme in schemes], rows)


def _plot(profile: TimeFrontier, frame: Frame) -> TimesPlot:
    points = [*profile.corners, *([profile.plan] if profile.plan else [])]
    y = Scale(*log_range([point.error for point in points]), frame.height - frame.bottom, frame.top)
    x = Scale(*log_range([point.milliseconds for point in points], margin=1.05), frame.left, frame.width - frame.right)
    corners = [(x(each.milliseconds), y(max(each.error, y.low))) for each in profile.corners]
    chosen = None if profile.plan is None else (x(profile.plan.milliseconds), y(max(profile.plan.error, y.low)))
    return TimesPlot(frame, _ticks(x), decade_ticks(y), path_through(corners), corners, chosen)


def _ticks(scale: Scale) -> list[Tick]:
    """Ticks in equal ratios."""
    count = max(2, int((scale.end - scale.start) / (2 * _APART)))
    values = [scale.low * (scale.high / scale.low) ** (step / count) for step in range(count + 1)]
    return [Tick(scale(value), f"{value:.3g}") for value in values]
