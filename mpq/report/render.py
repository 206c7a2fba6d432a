"""The page: one self-contained HTML file with its style, script and data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mpq.formats.scheme import Scheme
from mpq.records.diff import diff_plans
from mpq.records.frontier import Margin, Point
from mpq.report import words
from mpq.report.activations import activation_lines_of, activation_rows
from mpq.report.bars_plot import bars_plot
from mpq.report.colors import DARK, HEAT_DARK, HEAT_LIGHT, LIGHT, ramp
from mpq.report.finalists_plot import finalists_plot
from mpq.report.frontier_plot import NARROW, WIDE, compared_row, frontier_plot
from mpq.report.heat_plot import heat_plot
from mpq.report.opening import opening
from mpq.report.report_input import Subject
from mpq.report.rows import NOISE, Facts, facts_of
from mpq.report.summary import details, metric_name, noise_text, settled, tiles, verdict, warnings
from mpq.report.times_plot import timed
from mpq.report.training_plot import training_plot
from mpq.shown import ZERO_MARK, ZERO_NOTE, bits_cell, bits_text, visible

_FRAMES = ("wide", "narrow")
_FOOTNOTE = "<!-- footnote -->"


def render(subject: Subject) -> str:
    """The report as one HTML document."""
    return with_footnote(environment().get_template("report.html.j2").render(_context(subject)))


def with_footnote(page: str) -> str:
    """The page, with the note on characters that are shown in place of others, if there are any."""
    return page.replace(_FOOTNOTE, f'<p class="footnote">{ZERO_NOTE}</p>' if ZERO_MARK in page else "")


def environment() -> Environment:
    """Templates with the filters that they use."""
    environment = Environment(
        loader=PackageLoader("mpq.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters |= {
        name: getattr(words, name) for name in ("size", "signed_size", "figure", "short", "noise", "share", "change", "count", "either")
    } | {"bits_text": bits_text, "bits_cell": bits_cell}
    return environment


def _context(subject: Subject) -> dict[str, Any]:
    facts = facts_of(subject)
    frontier, other = subject.frontier, subject.other
    bars = [plot for name in _FRAMES if (plot := bars_plot(facts, name)) is not None]
    finalists = [each for name in _FRAMES if (each := finalists_plot(subject, name)) is not None]
    return {
        "title": subject.title,
        "subject": subject,
        "facts": facts,
        "labels": [str(scheme) for scheme in facts.schemes],
        "light": ramp(len(facts.schemes), LIGHT),
        "dark": ramp(len(facts.schemes), DARK),
        "heat_light": HEAT_LIGHT,
        "heat_dark": HEAT_DARK,
        "heat": heat_plot(facts),
        "limit": NOISE,
        "metric": metric_name(subject),
        "tiles": tiles(subject, facts),
        "opening": opening(subject, metric_name(subject)),
        "verdict": verdict(subject),
        "compared": None if other is None or subject.plan is None else diff_plans(other[1], subject.plan, table=subject.table),
        "other_name": None if other is None else other[0],
        "warnings": warnings(subject),
        "noise_text": noise_text(facts),
        "settled": settled(subject),
        "details": details(subject),
        "frontier": frontier,
        "frontier_plots": [frontier_plot(subject, frontier, frame) for frame in (WIDE, NARROW)] if frontier else [],
        "margins": [_margin(margin) for margin in (frontier.more, frontier.less) if margin] if frontier else [],
        "compared_row": compared_row(subject),
        "finalists": subject.evidence.get("finalists", []),
        "finalists_plots": finalists,
        "zip_lanes": list(zip(finalists[0].lanes, subject.evidence["finalists"], strict=True)) if finalists else [],
        "bars_plots": bars,
        "coded": any(scheme.is_coded for scheme in subject.drawn.values()),
        "training_plots": [curves for name in _FRAMES if (curves := training_plot(subject.training, name)) is not None],
        "recovery": _recovery(subject),
        "shown": subject.shown,
        "activations": activation_rows(subject),
        "activation_lines": activation_lines_of(subject),
        "times": timed(subject),
        "data": _data(subject, facts, bars),
    }


def _recovery(subject: Subject) -> dict[str, float | None]:
    """The errors on held-out samples before and after training, as far as the plan notes them as numbers."""
    noted = subject.evidence.get("recovery")
    named = ((name, noted.get(name) if isinstance(noted, Mapping) else None) for name in ("before", "after", "standard_error"))
    return {name: value if isinstance(value, (int, float)) else None for name, value in named}


def _margin(margin: Margin) -> dict[str, Any]:
    before, after = margin.before, margin.after
    return {
        "more": margin.bytes > 0,
        "bytes": margin.bytes,
        "share": margin.bytes / before.layer_bytes,
        "before": before.predicted,
        "after": after.predicted,
        "changes": [{"layer": c.layer, "before": str(c.before), "after": str(c.after)} for c in margin.changes],
    }


def _data(subject: Subject, facts: Facts, bars: list[Any]) -> dict[str, Any]:
    """The data for the script: the values of all cells, and the best plan of every size."""
    index = {scheme: number for number, scheme in enumerate(facts.schemes)}
    cells = [[None if cell is None else [_plain(cell.error), _plain(cell.stderr)] for cell in row.cells] for row in facts.rows]
    points = subject.frontier.points if subject.frontier else ()
    return {
        "metric": metric_name(subject),
        "schemes": [str(scheme) for scheme in facts.schemes],
        "names": [visible(row.name) for row in facts.rows],
        "weights": [row.weights for row in facts.rows],
        "bytes": [[scheme.stored_bits(layer.matrix) // 8 for scheme in facts.schemes] for layer in subject.layers],
        "cells": cells,
        "points": [_point(point, index) for point in points],
        "places": {plot.frame.name: plot.places for plot in (frontier_plot(subject, subject.frontier, f) for f in (WIDE, NARROW))}
        if subject.frontier
        else {},
        "start": [row.scheme for row in facts.rows],
        "bars": [{"bit": plot.per_bit, "byte": plot.per_byte, "floors": [plot.bits_floor, plot.bytes_floor]} for plot in bars],
    }


def _point(point: Point, index: dict[Scheme, int]) -> dict[str, Any]:
    return {
        "bits": bits_cell(point.effective_bits),
        "layers": point.layer_bytes,
        "file": point.file_bytes,
        "error": _plain(point.predicted),
        "choice": [index[scheme] for scheme in point.schemes.values()],
    }


def _plain(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
