"""The layout of the plot of size against error. The template only draws it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from mpq.records.frontier import Corner, Frontier, Point
from mpq.report.report_input import Subject
from mpq.report.scale import Scale, Tick, bit_ticks, decade_ticks, log_range
from mpq.report.words import figure, noise
from mpq.shown import bits_text

_NEGLIGIBLE = 1e-3  # the plot ends where the error has fallen to this share of its maximum
_LETTER, _LINE, _NEAR = 7.0, 14.0, 6.0


@dataclass(frozen=True)
class Frame:
    """A plot's size in pixels and its margins."""

    name: str
    width: int
    height: int
    left: int = 56
    right: int = 14
    top: int = 14
    bottom: int = 44


WIDE = Frame("wide", 920, 400)
NARROW = Frame("narrow", 340, 320, left=46, right=10)


@dataclass(frozen=True)
class Mark:
    """A plan on the plot.

    Args:
        x: place.
        y: place.
        kind: "uniform", "mixed", "compared" or "chosen".
        measured: whether the error is measured; else it is predicted.
        title: the tooltip.
        low: place of the lower end of its standard error, if it has one.
        high: place of the upper end.
        label: text next to it; empty if there is no room.
        label_x: x position of the text's anchor.
        label_y: its baseline.
        anchor: "start", "end" or "middle".
    """

    x: float
    y: float
    kind: str
    measured: bool
    title: str
    low: float | None = None
    high: float | None = None
    label: str = ""
    label_x: float = 0
    label_y: float = 0
    anchor: str = "start"


@dataclass(frozen=True)
class FrontierPlot:
    """Everything that the page and the picture draw.

    Args:
        frame: size of the plot.
        x_ticks: bits per weight.
        y_ticks: errors.
        places: the position of each frontier point; None if it is outside the plot.
        line: positions of the corners of the lower bound.
        marks: plans.
    """

    frame: Frame
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    places: list[tuple[float, float] | None]
    line: list[tuple[float, float]]
    marks: list[Mark]

    @property
    def path(self) -> str:
        """The line as an SVG path; of positions that look the same, only the first is kept."""
        return "M" + "L".join(f"{x:g} {y:g}" for x, y in dict.fromkeys(self.line)) if self.line else ""


def frontier_plot(subject: Subject, frontier: Frontier, frame: Frame) -> FrontierPlot:
    """Lay out the plot in a frame."""
    finalists = list(subject.evidence.get("finalists", ()))
    compared = compared_row(subject)
    x, y = frontier_scales(frontier, finalists, frame, compared=compared)
    inside = [p.predicted > 0 and p.effective_bits <= x.high * 1.0001 and p.predicted >= y.low for p in frontier.points]
    places = [(x(p.effective_bits), y(p.predicted)) if there else None for p, there in zip(frontier.points, inside, strict=True)]
    marks = [_predicted(point, "uniform", x, y) for point in frontier.uniform if point.effective_bits <= x.high and point.predicted > 0]
    marks += [mark for row in finalists if (mark := _measured(subject, row, x, y)) is not None]
    if compared is not None:
        marks += _compared(compared, x, y)
    if frontier.chosen is not None and frontier.chosen.predicted > 0:
        marks.append(_predicted(frontier.chosen, "chosen", x, y))
    drawn = [place for place in places if place is not None]
    line = [(x(corner.effective_bits), y(corner.predicted)) for corner in visible_bound(frontier, x, y)]
    return FrontierPlot(frame, bit_ticks(x), decade_ticks(y), places, line, _labelled(marks, [*_along(line), *drawn], frame))


def visible_bound(frontier: Frontier, x: Scale, y: Scale) -> list[Corner]:
    """The corners of the lower bound, as far as the plot reaches.

    Between two corners the bound is linear in the values. A straight line on logarithmic scales is never above it, so no plan is below the
    drawn line.
    """
    kept: list[Corner] = []
    for corner in frontier.bound:
        if corner.effective_bits <= x.high and corner.predicted >= y.low:
            kept.append(corner)
            continue
        if kept:
            kept.append(_cut(kept[-1], corner, x.high, y.low))
        break
    return kept


def _cut(inside: Corner, outside: Corner, most_bits: float, least: float) -> Corner:
    """Where the line from a corner inside the plot to one outside leaves it."""
    share = 1.0
    if outside.effective_bits > most_bits:
        share = min(share, (most_bits - inside.effective_bits) / (outside.effective_bits - inside.effective_bits))
    if outside.predicted < least:
        share = min(share, (inside.predicted - least) / (inside.predicted - outside.predicted))
    return Corner(*(a + share * (b - a) for a, b in zip(inside, outside, strict=True)))


def frontier_scales(
    frontier: Frontier, finalists: Sequence[Mapping[str, Any]], frame: Frame, *, compared: Mapping[str, Any] | None = None
) -> tuple[Scale, Scale]:
    """The scales of a frontier plot: bits across, errors up; `compared` is a row of `compared_row`."""
    points = [*frontier.points, *frontier.uniform, *([frontier.chosen] if frontier.chosen else [])]
    if compared is not None:
        finalists = [*finalists, compared]
        points.append(Point(compared["name"], {}, compared["effective_bits"], 0, 0, compared["predicted"]))
    top = max((p.predicted for p in points if math.isfinite(p.predicted)), default=1.0)
    enough = next((p.effective_bits for p in frontier.points if p.predicted <= _NEGLIGIBLE * top), frontier.points[-1].effective_bits)
    right = max(enough, frontier.chosen.effective_bits * 1.15 if frontier.chosen else 0, compared["effective_bits"] if compared else 0)
    shown = [p for p in points if p.effective_bits <= right]
    low, high = min(p.effective_bits for p in shown), max(right, max(p.effective_bits for p in shown))
    measured = [row["held_out"] + part * (row.get("held_out_stderr") or 0) for row in finalists if row.get("held_out") for part in (0, 1)]
    bottom, above = log_range([*(p.predicted for p in shown), *measured], margin=1.25 if not measured else 1.6)
    pad = max(1.01, (high / low) ** 0.05)
    x = Scale(low / pad, high * pad, frame.left, frame.width - frame.right)
    return x, Scale(bottom, above, frame.height - frame.bottom, frame.top)


def _predicted(point: Point, kind: str, x: Scale, y: Scale) -> Mark:
    name = f"uniform {point.name}" if kind == "uniform" else point.name
    title = f"{name}: {bits_text(point.effective_bits)} bits per weight, predicted {figure(point.predicted)}"
    return Mark(x(point.effective_bits), y(point.predicted), kind, False, title, label=point.name)


def _measured(subject: Subject, row: Mapping[str, Any], x: Scale, y: Scale) -> Mark | None:
    error, stderr, bits = row.get("held_out"), row.get("held_out_stderr"), float(row["effective_bits"])
    if not error or error <= 0 or not x.low <= bits <= x.high:
        return None
    kind = finalist_kind(subject, row)
    label = {"chosen": "this plan", "uniform": str(row["name"])}.get(kind, "")
    title = f"{row['name']}: {bits_text(bits)} bits per weight, held-out {figure(error)} {noise(stderr)}"
    low, high = (None, None) if not stderr else (y(max(error - stderr, y.low)), y(error + stderr))
    return Mark(x(bits), y(error), kind, True, title, low, high, label)


def compared_row(subject: Subject) -> dict[str, Any] | None:
    """The plan that this one is compared with, like a row of a finalist: its error as predicted by this table, and what was measured.

    None without such a plan, or where the table has not measured one of its schemes.
    """
    if subject.other is None:
        return None
    name, plan = subject.other
    errors = [subject.error(layer, scheme) for layer, scheme in plan.layers.items()]
    predicted = math.fsum(error[0] for error in errors if error is not None)
    if None in errors or set(plan.layers) != set(subject.schemes) or not 0 < predicted < math.inf:
        return None
    size = plan.size
    found = {"name": name, "effective_bits": size.effective_bits, "layer_bytes": size.layer_bytes, "file_bytes": size.file_bytes}
    found["predicted"] = predicted
    same = subject.plan is not None and plan.analysis == subject.plan.analysis and plan.evidence_is_current
    return found | (dict(plan.evidence.get("measured", {})) if same else {})


def _compared(row: Mapping[str, Any], x: Scale, y: Scale) -> list[Mark]:
    """The marks of a compared plan: predicted, and measured where the same samples decided about both."""
    marks = [_predicted(Point(row["name"], {}, row["effective_bits"], 0, 0, row["predicted"]), "compared", x, y)]
    error, stderr = row.get("held_out"), row.get("held_out_stderr")
    if error and error > 0:
        title = f"{row['name']}: {bits_text(row['effective_bits'])} bits per weight, held-out {figure(error)} {noise(stderr)}"
        low, high = (None, None) if not stderr else (y(max(error - stderr, y.low)), y(error + stderr))
        marks.append(Mark(x(row["effective_bits"]), y(error), "compared", True, title, low, high, row["name"]))
    return marks


def finalist_kind(subject: Subject, row: Mapping[str, Any]) -> str:
    """What a finalist is: "chosen", "uniform" or "mixed"."""
    decision = str(subject.evidence.get("decision", "")).partition(":")[0].removeprefix("uniform ")
    if row["name"] == decision:
        return "chosen"
    return "uniform" if is_uniform(subject, row) else "mixed"


def is_uniform(subject: Subject, row: Mapping[str, Any]) -> bool:
    """Whether a finalist has the name of a scheme."""
    return row["name"] in {
        str(scheme) for table in [subject.table] if table for each in table.header.candidates.values() for scheme in each
    }


def _along(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places all along a line, so near that no label fits between them."""
    found = list(line[:1])
    for (x1, y1), (x2, y2) in pairwise(line):
        steps = max(1, math.ceil(max(abs(x2 - x1), abs(y2 - y1)) / _NEAR))
        found += [(x1 + (x2 - x1) * step / steps, y1 + (y2 - y1) * step / steps) for step in range(1, steps + 1)]
    return found


def _labelled(marks: Sequence[Mark], line: Sequence[tuple[float, float]], frame: Frame) -> list[Mark]:
    """The marks with their labels next to them; a label without free space is left out."""
    taken = [(m.x - 6, m.y - 6, m.x + 6, m.y + 6) for m in marks]
    taken += [(m.x - 4, m.high, m.x + 4, m.low) for m in marks if m.low is not None and m.high is not None]
    taken += [(x - 3, y - 3, x + 3, y + 3) for x, y in line]
    done: list[Mark] = []
    named: set[tuple[str, str]] = set()
    for mark in sorted(marks, key=lambda m: (m.kind != "chosen", not m.measured)):
        placed = replace(mark, label="")
        width = _LETTER * len(mark.label)
        for dx, dy, anchor in _around(mark) if (mark.kind, mark.label) not in named else ():
            left = mark.x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (left, mark.y + dy - _LINE + 3, left + width, mark.y + dy + 3)
            fits = frame.left < box[0] and box[2] < frame.width and box[1] > 0 and box[3] < frame.height - frame.bottom
            if mark.label and fits and not any(_overlap(box, other) for other in taken if not _inside(mark, other)):
                taken.append(box)
                named.add((mark.kind, mark.label))
                placed = replace(mark, label_x=round(mark.x + dx, 1), label_y=round(mark.y + dy, 1), anchor=anchor)
                break
        done.append(placed)
    return sorted(done, key=lambda m: (m.kind == "chosen", m.measured))


def _around(mark: Mark) -> list[tuple[float, float, str]]:
    """Possible positions of a label, best first; for a measured uniform plan, above its error bar."""
    above = [] if mark.high is None or mark.kind == "chosen" else [(0.0, mark.high - mark.y - 7, "middle")]
    return [*above, (11, 4, "start"), (0, -12, "middle"), (9, -9, "start"), (-11, 4, "end"), (-9, -9, "end"), (0, 20, "middle")]


def _inside(mark: Mark, box: tuple[float, float, float, float]) -> bool:
    """Whether the box is the mark's own."""
    return box == (mark.x - 6, mark.y - 6, mark.x + 6, mark.y + 6)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
