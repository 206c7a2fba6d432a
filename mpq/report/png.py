"""The main plots as PNG, drawn with matplotlib, for places that cannot show HTML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpq.distribution import install
from mpq.errors import UsageError
from mpq.files import atomic_write
from mpq.report.bars_plot import bars_plot
from mpq.report.colors import LIGHT, ramp
from mpq.report.frontier_plot import WIDE, frontier_plot
from mpq.report.report_input import Subject
from mpq.report.rows import Facts, facts_of
from mpq.report.summary import metric_name
from mpq.shown import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACCENT, _PLAN, _PLAIN = "#1f5fbf", "#c2255c", "#6b7280"
_MARKS = {"chosen": (_PLAN, "D", "this plan"), "uniform": (_PLAIN, "s", "uniform"), "mixed": (_ACCENT, "o", "other finalist")}
_ANCHORS = {"start": "left", "middle": "center", "end": "right"}
_NAMED_LAYERS = 60  # with more layers, the heat map shows no names


def write_pictures(subject: Subject, beside: Path) -> list[Path]:
    """Write the plots next to an HTML report: NAME.frontier.png, NAME.bits.png, NAME.heat.png.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise UsageError(f"--png needs matplotlib: {install('png')}") from error
    matplotlib.use("Agg")
    with matplotlib.rc_context({"text.parse_math": False}):  # a "$" in a name does not start a formula
        return _drawn(subject, beside)


def _drawn(subject: Subject, beside: Path) -> list[Path]:
    facts = facts_of(subject)
    drawn = []
    if subject.frontier is not None:
        drawn.append(_picture(beside, "frontier", (9.2, 4.6), lambda axes: _frontier(axes, subject)))
    if subject.drawn:
        drawn.append(_picture(beside, "bits", (9.2, 3.4), lambda axes: _bits(axes, facts)))
    if facts.heat:
        height = 1.6 + min(len(facts.rows), 3 * _NAMED_LAYERS) * (0.24 if len(facts.rows) <= _NAMED_LAYERS else 0.05)
        drawn.append(_picture(beside, "heat", (2.8 + 0.9 * len(facts.heat), height), lambda axes: _heat(axes, facts, metric_name(subject))))
    return drawn


def _picture(beside: Path, name: str, inches: tuple[float, float], draw: Any) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    path = beside.with_name(f"{beside.name.removesuffix('.html').removesuffix('.report')}.{name}.png")
    with atomic_write(path) as file:
        figure.savefig(file, dpi=150, format="png")
    return path


def _frontier(axes: Axes, subject: Subject) -> None:
    """The page's plot, from the same layout; positions are pixels of its frame."""
    assert subject.frontier is not None
    plot = frontier_plot(subject, subject.frontier, WIDE)
    frame = plot.frame
    axes.plot(*zip(*plot.line, strict=True), color=_ACCENT, label="least of any plan")
    dots = [place for place in plot.places if place is not None]
    axes.plot([x for x, _ in dots], [y for _, y in dots], ".", ms=3, color=_ACCENT, label="best plans")
    named: set[str] = set()
    for mark in plot.marks:
        color, shape, what = _MARKS[mark.kind]
        label = f"{what}, {'held-out' if mark.measured else 'predicted'}"
        whisker = None if mark.low is None or mark.high is None else [[mark.y - mark.high], [mark.low - mark.y]]
        face = color if mark.measured else "white"
        axes.errorbar(
            mark.x, mark.y, whisker, fmt=shape, color=color, mfc=face, mec=color, capsize=3, label=None if label in named else label
        )
        named.add(label)
        if mark.label:
            axes.text(mark.label_x, mark.label_y, printable(mark.label), ha=_ANCHORS[mark.anchor], va="baseline", fontsize=8)
    axes.set(xlim=(frame.left, frame.width - frame.right), ylim=(frame.height - frame.bottom, frame.top))
    axes.set_xticks([tick.at for tick in plot.x_ticks], [tick.label for tick in plot.x_ticks])
    axes.set_yticks([tick.at for tick in plot.y_ticks], [tick.label for tick in plot.y_ticks])
    axes.grid(color="#e3e5ea")
    axes.set_axisbelow(True)
    axes.set(xlabel="bits per weight over the layers", ylabel=metric_name(subject), title=printable(subject.title))
    axes.legend(frameon=False, fontsize=8)


def _bits(axes: Axes, facts: Facts) -> None:
    """The upper part of the page's columns, from the same layout."""
    colors, plot = ramp(len(facts.schemes), LIGHT), bars_plot(facts, "wide")
    assert plot is not None
    for index, scheme in enumerate(facts.schemes):
        columns = [column for column in plot.columns if column.scheme == index]
        if columns:
            edges, heights = [column.x for column in columns], [column.bits for column in columns]
            axes.bar(edges, heights, align="edge", width=plot.width, color=colors[index], label=str(scheme))
    axes.set_yticks([plot.bits_floor - tick.at for tick in plot.bits_ticks], [tick.label for tick in plot.bits_ticks])
    axes.set_xticks([])
    axes.set(xlabel="layers, in the order of the model", ylabel="bits per weight")
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=8, ncols=6, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _heat(axes: Axes, facts: Facts, metric: str) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    values = np.array([[_shown(row.cells[s], facts) for s in facts.heat] for row in facts.rows])
    image = axes.imshow(
        values, aspect="auto", cmap="YlOrBr", norm=LogNorm(facts.least or 1e-9, max(facts.greatest, (facts.least or 1e-9) * 1.01))
    )
    axes.set_xticks(range(len(facts.heat)), [str(facts.schemes[s]) for s in facts.heat], fontsize=8)
    axes.xaxis.tick_top()
    if len(facts.rows) <= _NAMED_LAYERS:
        axes.set_yticks(range(len(facts.rows)), [printable(row.name) for row in facts.rows], fontsize=7)
    for y, row in enumerate(facts.rows):
        if row.scheme in facts.heat:
            corner = (facts.heat.index(row.scheme) - 0.46, y - 0.42)
            axes.add_patch(Rectangle(corner, 0.92, 0.84, fill=False, ec="white", lw=3))
            axes.add_patch(Rectangle(corner, 0.92, 0.84, fill=False, ec=_PLAN, lw=1.4))
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.6)
    bar.set_label(metric, fontsize=8)


def _shown(cell: Any, facts: Facts) -> float:
    if cell is None:
        return float("nan")
    return float(min(max(cell.error, facts.least), facts.greatest))
