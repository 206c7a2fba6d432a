"""The main plots as PNG, drawn with matplotlib, for places that cannot show HTML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpq.distribution import install
from mpq.errors import UsageError
from mpq.files import atomic_write
from mpq.report.bars_plot import bars_plot
from mpq.report.colors import HEAT_LIGHT, LIGHT, ramp
from mpq.report.frontier_plot import WIDE, frontier_plot
from mpq.report.heat_plot import HeatPlot, heat_plot
from mpq.report.report_input import Subject
from mpq.report.rows import LEVELS, Facts, facts_of
from mpq.report.summary import metric_name
from mpq.report.words import short
from mpq.shown import ZERO_MARK, ZERO_NOTE, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACCENT, _PLAN, _PLAIN, _OTHER = "#1f5fbf", "#c2255c", "#6b7280", "#15703a"
_MARKS = {
    "chosen": (_PLAN, "D", "this plan"),
    "uniform": (_PLAIN, "s", "uniform"),
    "mixed": (_ACCENT, "o", "other finalist"),
    "compared": (_OTHER, "^", ""),
}
_EMPTY, _DEEP = "#eef0f3", 7  # a cell without a figure; the first color that wants white figures
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
    heat = heat_plot(facts)
    if heat.columns:
        height = 1.9 + min(len(heat.rows), 3 * _NAMED_LAYERS) * (0.24 if len(heat.rows) <= _NAMED_LAYERS else 0.05)
        drawn.append(
            _picture(beside, "heat", (4.2 + 0.9 * len(heat.columns), height), lambda axes: _heat(axes, heat, metric_name(subject)))
        )
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
        what = what or printable("" if subject.other is None else subject.other[0])
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


def _heat(axes: Axes, plot: HeatPlot, metric: str) -> None:
    """What the page draws, from the same description; figures stand in the cells while the layers have names."""
    from matplotlib.colors import ListedColormap

    named = len(plot.rows) <= _NAMED_LAYERS
    levels = np.array([[np.nan if cell is None else cell.level for cell in row.cells] for row in plot.rows])
    axes.imshow(levels, aspect="auto", cmap=ListedColormap(HEAT_LIGHT), vmin=-0.5, vmax=LEVELS - 0.5)
    axes.set_facecolor(_EMPTY)
    axes.set_xticks(range(len(plot.columns)), plot.columns, fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(plot.rows)) if named else [], [printable(row.name) for row in plot.rows] if named else [], fontsize=7)
    for y, row in enumerate(plot.rows):
        for x, cell in enumerate(row.cells) if named else ():
            if cell is not None:
                style = "italic" if cell.noisy else "normal"
                axes.text(x, y, short(cell.error), ha="center", va="center", fontsize=7, style=style, color=_ink(cell.level))
        if row.chosen is not None:
            _ring(axes, row.chosen, y)
    axes.set_xlabel(_under_heat(plot) if named else "layers from top to bottom, in the order of the model", fontsize=8)
    _heat_legend(axes, plot, metric)


def _under_heat(plot: HeatPlot) -> str:
    """What the marks of figures in the cells mean, as far as there are any."""
    cells = [cell for row in plot.rows for cell in row.cells if cell is not None]
    notes = ["italic: within noise of zero"] if any(cell.noisy for cell in cells) else []
    return "; ".join([*notes, *([ZERO_NOTE] if any(short(cell.error) == ZERO_MARK for cell in cells) else [])])


def _ink(level: int) -> str:
    return "white" if level >= _DEEP else "#191b1f"


def _ring(axes: Axes, x: int, y: int) -> None:
    from matplotlib.patches import Rectangle

    for color, width in (("white", 3.0), (_PLAN, 1.4)):
        axes.add_patch(Rectangle((x - 0.46, y - 0.42), 0.92, 0.84, fill=False, ec=color, lw=width))


def _heat_legend(axes: Axes, plot: HeatPlot, metric: str) -> None:
    """Each color with the errors that it stands for, the ring, and what is empty."""
    from matplotlib.patches import Patch

    handles = [Patch(fc=HEAT_LIGHT[level], ec="#c9ccd3", lw=0.5, label=text) for level, text in reversed(plot.key)]
    if any(cell is None for row in plot.rows for cell in row.cells):
        handles.append(Patch(fc=_EMPTY, ec="#c9ccd3", lw=0.5, label="not measured"))
    if any(row.chosen is not None for row in plot.rows):
        handles.append(Patch(fc="white", ec=_PLAN, lw=1.4, label="scheme of the plan"))
    axes.legend(
        handles=handles,
        title=metric,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0,
        frameon=False,
        fontsize=8,
        title_fontsize=8,
    )
