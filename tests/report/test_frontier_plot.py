import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpq.records.frontier import Corner, Frontier, Point
from mpq.report.frontier_plot import NARROW, WIDE, Frame, compared_row, finalist_kind, frontier_plot, frontier_scales
from mpq.report.report_input import Subject
from mpq.search.frontier import frontier
from mpq.search.run import search
from tests.report.making import whole, with_evidence
from tests.small import linear, random_table, schemes, table

ONE = table([linear("a", 4, 64)], {"a": {"int4": 1.0, "int8": 0.5}})


def point(bits: float, predicted: float, name: str = "") -> Point:
    return Point(name, {}, bits, 0, 0, predicted)


@pytest.mark.parametrize("frame", [WIDE, NARROW])
@pytest.mark.parametrize("seed", range(3))
def test_everything_drawn_lies_inside_the_plot(frame: Frame, seed: int) -> None:
    found = random_table(seed)
    plan = search(found, "5bits").plan
    plot = frontier_plot(Subject("p", table=found, plan=plan), frontier(found, plan, count=24), frame)
    for mark in plot.marks:
        assert frame.left <= mark.x <= frame.width - frame.right
        assert frame.top <= mark.y <= frame.height - frame.bottom
    chosen = [mark for mark in plot.marks if mark.kind == "chosen"]
    assert [mark.title.split(":")[0] for mark in chosen] == ["this plan"]


def curve_of(*points: Point, **others: Any) -> Frontier:
    """A frontier all of whose points are corners of the line below which no plan lies."""
    return Frontier(points, tuple(Corner(each.effective_bits, each.predicted) for each in points), **others)


def test_the_path_goes_from_corner_to_corner_and_down() -> None:
    curve = curve_of(point(2, 1.0), point(4, 0.1), point(8, 0.01))
    plot = frontier_plot(Subject("p", table=ONE), curve, WIDE)
    (x1, y1), (x2, y2), (x3, y3) = (place for place in plot.places if place is not None)
    assert x1 < x2 < x3
    assert y1 < y2 < y3
    places = [tuple(map(float, each.split())) for each in plot.path.removeprefix("M").split("L")]
    assert places[0] == pytest.approx((x1, y1), abs=0.1)
    assert places[-1] == pytest.approx((x3, y3), abs=0.1)
    assert any(each == pytest.approx((x2, y2), abs=0.1) for each in places)


def test_points_of_negligible_or_no_error_lie_beyond_the_plot() -> None:
    curve = curve_of(point(2, 1.0), point(4, 1e-3), point(8, 1e-6), point(16, 0.0))
    plot = frontier_plot(Subject("p", table=ONE), curve, WIDE)
    assert [place is None for place in plot.places] == [False, False, True, True]


def test_the_scales_reach_past_the_chosen_plan() -> None:
    curve = curve_of(point(2, 1.0), point(4, 1e-3), point(8, 1e-6), chosen=point(6, 1e-4, "this plan"))
    x, y = frontier_scales(curve, [], WIDE)
    assert x.low == pytest.approx(2 / (6 * 1.15 / 2) ** 0.05)
    assert x.high == pytest.approx(6 * 1.15 * (6 * 1.15 / 2) ** 0.05)
    assert (x.start, x.end) == (WIDE.left, WIDE.width - WIDE.right)
    assert [y.low, y.high] == pytest.approx([1e-4 / 1.25, 1.25])
    assert (y.start, y.end) == (WIDE.height - WIDE.bottom, WIDE.top)


def test_the_scales_hold_measured_errors_with_their_noise() -> None:
    curve = curve_of(point(2, 1.0), point(4, 0.5))
    _, y = frontier_scales(curve, [{"held_out": 3.0, "held_out_stderr": 1.0}, {"held_out": None}], WIDE)
    assert [y.low, y.high] == pytest.approx([0.5 / 1.6, 4.0 * 1.6])


def test_marks_say_what_they_are() -> None:
    subject = whole(random_table(1))
    assert subject.frontier is not None
    titles = [mark.title for mark in frontier_plot(subject, subject.frontier, WIDE).marks]
    assert "int4: 4.2 bits per weight, held-out 1.5 ±0.5" in titles
    bits = subject.frontier.chosen.effective_bits if subject.frontier.chosen else 0
    assert f"exact: {bits:.4g} bits per weight, held-out 0.5 ±0.17" in titles
    assert any(title.startswith("uniform int4: ") for title in titles)


def test_a_measured_mark_has_the_ends_of_its_standard_error() -> None:
    subject = whole(random_table(1))
    assert subject.frontier is not None
    plot = frontier_plot(subject, subject.frontier, WIDE)
    _, y = frontier_scales(subject.frontier, subject.evidence["finalists"], WIDE)
    (mark,) = [each for each in plot.marks if each.measured and each.kind == "uniform"]
    assert (mark.y, mark.low, mark.high) == (y(1.5), y(1.0), y(2.0))


def test_one_name_is_written_once() -> None:
    subject = whole(random_table(1))
    assert subject.frontier is not None
    labels = [(mark.kind, mark.label) for mark in frontier_plot(subject, subject.frontier, WIDE).marks if mark.label]
    assert len(labels) == len(set(labels))
    assert ("chosen", "this plan") in labels


def test_labels_do_not_overlap() -> None:
    curve = curve_of(point(2, 1.0), point(8, 0.5), uniform=tuple(point(4, 0.7, f"name-{n}") for n in range(40)))
    marks = frontier_plot(Subject("p", table=ONE), curve, WIDE).marks
    labels = [mark for mark in marks if mark.label]
    assert 1 <= len(labels) < 40
    assert len({(mark.label_x, mark.label_y) for mark in labels}) == len(labels)


@pytest.mark.parametrize(
    ("decision", "name", "kind"),
    [
        ("exact: better", "exact", "chosen"),
        ("uniform int4: better", "int4", "chosen"),
        ("exact: better", "int4", "uniform"),
        ("exact: better", "knobs", "mixed"),
    ],
)
def test_a_finalist_is_chosen_uniform_or_mixed(decision: str, name: str, kind: str) -> None:
    plan = search(ONE, "8bits").plan
    plan = replace(plan, evidence={"assignment": plan.assignment, "decision": decision})
    assert finalist_kind(Subject("p", table=ONE, plan=plan), {"name": name}) == kind


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
@example(seed=203)  # uniform fp16 is to the right of the plot
def test_no_uniform_and_no_random_plan_is_drawn_below_the_line(seed: int) -> None:
    found = random_table(seed, count=5)
    subject, weights = Subject("p", table=found, frontier=frontier(found, count=12)), sum(layer.weights for layer in found.layers)
    assert subject.frontier is not None
    x, y = frontier_scales(subject.frontier, [], WIDE)
    path = frontier_plot(subject, subject.frontier, WIDE).path
    line = np.array([list(map(float, place.split())) for place in path.removeprefix("M").split("L")])
    generator = random.Random(seed)
    drawn = [{layer.name: generator.choice(found.header.candidates[layer.name]) for layer in found.layers} for _ in range(20)]
    sizes = [sum(each[layer.name].stored_bits(layer.matrix) for layer in found.layers) / weights for each in drawn]
    plans = [(bits, sum(found.mean(*pair) for pair in each.items())) for bits, each in zip(sizes, drawn, strict=True)]
    plans += [(point.effective_bits, point.predicted) for point in subject.frontier.uniform]
    for bits, error in plans:
        if y.low <= error <= y.high and bits <= x.high and x(bits) <= line[-1, 0]:
            assert y(error) <= float(np.interp(x(bits), *line.T)) + 0.5  # pixels; down is greater


def test_a_compared_plan_is_placed_by_this_table_and_by_what_was_measured_of_it() -> None:
    found = random_table(1)
    subject = whole(found)
    assert subject.plan is not None
    other = with_evidence(search(found, "6bits").plan)
    plot = frontier_plot(replace(subject, other=("old.yaml", other)), frontier(found, subject.plan, count=12), WIDE)
    predicted, measured = sorted((mark for mark in plot.marks if mark.kind == "compared"), key=lambda mark: mark.measured)
    error = sum(found.mean(layer, scheme) for layer, scheme in other.layers.items())
    assert predicted.title == f"old.yaml: {other.size.effective_bits:.4g} bits per weight, predicted {error:.4g}"
    assert measured.title == f"old.yaml: {other.size.effective_bits:.4g} bits per weight, held-out 0.5 ±0.1"
    assert measured.x == predicted.x
    assert measured.high is not None
    assert measured.high < measured.y


def test_what_was_measured_of_a_compared_plan_of_another_analysis_is_not_drawn() -> None:
    found = random_table(1)
    other = replace(with_evidence(search(found, "6bits").plan), analysis={"sha256": "c" * 64})
    row = compared_row(replace(whole(found), other=("old.yaml", other)))
    assert row is not None
    assert "held_out" not in row
    assert row["layer_bytes"] == other.size.layer_bytes


def test_a_compared_plan_of_other_layers_or_schemes_is_not_drawn() -> None:
    found = random_table(1)
    plan = search(found, "6bits").plan
    name = next(iter(plan.layers))
    unknown = replace(plan, layers=plan.layers | {name: schemes("int7")[0]})
    fewer = replace(plan, layers={key: value for key, value in plan.layers.items() if key != name})
    subject = whole(found)
    assert compared_row(subject) is None
    assert compared_row(replace(subject, other=("old", unknown))) is None
    assert compared_row(replace(subject, other=("old", fewer))) is None


def test_no_label_stands_on_the_line() -> None:
    found = random_table(1)
    plot = frontier_plot(replace(whole(found), other=("old.yaml", search(found, "6bits").plan)), frontier(found, count=12), WIDE)
    for mark in (mark for mark in plot.marks if mark.label):
        width = 7 * len(mark.label)
        left = mark.label_x - {"start": 0, "middle": width / 2, "end": width}[mark.anchor]
        for (x1, y1), (x2, y2) in pairwise(plot.line):  # stairs: each part is level or upright
            apart = max(x1, x2) < left or min(x1, x2) > left + width or max(y1, y2) < mark.label_y - 11 or min(y1, y2) > mark.label_y + 3
            assert apart, mark.label
