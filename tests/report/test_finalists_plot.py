from dataclasses import replace
from typing import Any

from mpq.report.finalists_plot import finalists_plot
from mpq.report.report_input import Subject
from mpq.report.scale import Scale
from mpq.search.run import search
from tests.small import linear, table

FOUND = table([linear("a", 4, 64)], {"a": {"int4": 1.0, "int8": 0.5}})


def subject(*rows: dict[str, Any]) -> Subject:
    plan = search(FOUND, "9bits").plan
    return Subject(
        "p", table=FOUND, plan=replace(plan, evidence={"assignment": plan.assignment, "decision": "exact", "finalists": list(rows)})
    )


def test_there_is_no_plot_without_finalists() -> None:
    assert finalists_plot(subject(), "wide") is None
    assert finalists_plot(Subject("p", table=FOUND), "wide") is None


def test_a_lane_holds_predicted_calibration_and_held_out() -> None:
    row = {"name": "exact", "effective_bits": 4.4965, "predicted": 0.01, "calibration": 0.1, "held_out": 1.0, "held_out_stderr": 0.5}
    plot = finalists_plot(subject(row, row | {"name": "int4"}), "wide")
    assert plot is not None
    assert (plot.frame.width, plot.frame.height) == (920, 30 + 2 * 58 + 24)
    scale = Scale(0.01 / 1.25, 1.5 * 1.25, 250, 904)
    first, second = plot.lanes
    assert (first.name, first.kind, first.bits, first.y) == ("exact", "chosen", "4.496", 8 + 29)
    assert (second.name, second.kind, second.y) == ("uniform int4", "uniform", 8 + 29 + 58)
    assert [(dot.series, dot.x, dot.y) for dot in first.dots] == [
        ("predicted", scale(0.01), 30),
        ("calibration", scale(0.1), 43),
        ("held_out", scale(1.0), 56),
    ]
    assert [(dot.low, dot.high) for dot in first.dots] == [(None, None), (None, None), (scale(0.5), scale(1.5))]
    assert [tick.label for tick in plot.x_ticks if tick.label] == ["0.01", "0.1", "1"]


def test_what_was_not_measured_or_is_not_positive_has_no_dot() -> None:
    row = {"name": "exact", "effective_bits": 4.25, "predicted": -0.5, "calibration": None, "held_out": 1.0}
    plot = finalists_plot(subject(row), "narrow")
    assert plot is not None
    assert [dot.series for dot in plot.lanes[0].dots] == ["held_out"]


def test_noise_that_reaches_zero_ends_at_the_scale() -> None:
    row = {"name": "exact", "effective_bits": 4.25, "predicted": 0.5, "calibration": 0.5, "held_out": 1.0, "held_out_stderr": 2.0}
    plot = finalists_plot(subject(row), "wide")
    assert plot is not None
    dot = plot.lanes[0].dots[2]
    assert (dot.low, dot.high is not None and dot.high > dot.x) == (plot.frame.left, True)
