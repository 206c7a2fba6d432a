"""The main plots as PNG, drawn with matplotlib: for documents and chats, where no HTML goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpq.distribution import install
from mpq.errors import UsageError
from mpq.files import atomic_write
from mpq.report.colors import LIGHT, ramp
from mpq.report.frontier_plot import WIDE, finalist_kind, frontier_scales, visible_bound
from mpq.report.report_input import Subject
from mpq.report.rows import Facts, facts_of
from mpq.report.summary import metric_name
from mpq.shown import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACCENT, _PLAN, _PLAIN = "#1f5fbf", "#c2255c", "#6b7280"
_NAMED_LAYERS = 60  # more layers than that are not named on the heat map


def write_pictures(subject: Subject, beside: Path) -> list[Path]:
    """Write what can be drawn beside an HTML report: NAME.frontier.png, NAME.bits.png, NAME.heat.png.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise UsageError(f"--png needs matplotlib: {install('png')}") from error
    matplotlib.use("Agg")
    with matplotlib.rc_context({"text.parse_math": False}):  # a "$" in a name is no formula
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
    frontier, rows = subject.frontier, [row for row in subject.evidence.get("finalists", ()) if row["held_out"] is not None]
    assert frontier is not None
    x, y = frontier_scales(frontier, rows, WIDE)
    line = visible_bound(frontier, x, y)
    axes.plot([c.effective_bits for c in line], [c.predicted for c in line], color=_ACCENT, label="least of any plan")
    dots = [p for p in frontier.points if p.predicted >= y.low and p.effective_bits <= x.high]
    axes.plot([p.effective_bits for p in dots], [p.predicted for p in dots], ".", ms=3, color=_ACCENT, label="best plans")
    shown = [p for p in frontier.uniform if p.effective_bits <= x.high and p.predicted > 0]
    axes.plot([p.effective_bits for p in shown], [p.predicted for p in shown], "s", mfc="white", mec=_PLAIN, label="uniform, predicted")
    for p in shown:
        tops = [row["held_out"] + (row.get("held_out_stderr") or 0.0) for row in rows if row["name"] == p.name]
        at, above = (p.effective_bits, max(p.predicted, *tops, 0.0)), (0, 6)  # clear of the error bar
        axes.annotate(p.name, at, xytext=above, textcoords="offset points", ha="center", fontsize=8, color="#333333")
    if frontier.chosen is not None:
        axes.plot(frontier.chosen.effective_bits, frontier.chosen.predicted, "D", mfc="white", mec=_PLAN, label="this plan, predicted")
    for row in rows:
        kind = finalist_kind(subject, row)
        color, shape = {"chosen": (_PLAN, "D"), "uniform": (_PLAIN, "s")}.get(kind, (_ACCENT, "o"))
        label = {"chosen": "this plan, held-out", "uniform": "uniform, held-out"}.get(kind, "other finalist, held-out")
        labelled = label not in axes.get_legend_handles_labels()[1]
        stderr = row.get("held_out_stderr") or 0.0
        axes.errorbar(row["effective_bits"], row["held_out"], stderr, fmt=shape, color=color, capsize=3, label=label if labelled else None)
    axes.set(xscale="log", yscale="log", xlim=(x.low, x.high), ylim=(y.low, y.high))
    ticks = [bits for bits in (2, 3, 4, 5, 6, 8, 10, 12, 16) if x.low <= bits <= x.high]
    axes.set_xticks(ticks, [str(bits) for bits in ticks])
    axes.minorticks_off()
    axes.grid(color="#e3e5ea")
    axes.set_axisbelow(True)
    axes.set(xlabel="bits per weight over the layers", ylabel=metric_name(subject), title=printable(subject.title))
    axes.legend(frameon=False, fontsize=8)


def _bits(axes: Axes, facts: Facts) -> None:
    colors = ramp(len(facts.schemes), LIGHT)
    for index, scheme in enumerate(facts.schemes):
        rows = [row for row in facts.rows if row.scheme == index]
        if rows:
            axes.bar([row.number for row in rows], [row.bits or 0.0 for row in rows], color=colors[index], label=str(scheme), width=0.85)
    axes.locator_params(axis="x", integer=True)
    axes.set(xlabel="layer, in the order of the model", ylabel="bits per weight")
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
