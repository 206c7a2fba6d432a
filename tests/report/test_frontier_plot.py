from dataclasses import replace

import pytest

from mpq.records.frontier import Frontier, Point
from mpq.report.frontier_plot import NARROW, WIDE, Frame, finalist_kind, frontier_plot, frontier_scales
from mpq.report.report_input import Subject
from mpq.search.frontier import frontier
from mpq.search.run import search
from tests.report.making import whole
from tests.small import linear, random_table, table

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


def test_the_path_goes_right_and_then_down() -> None:
    curve = Frontier((point(2, 1.0), point(4, 0.1), point(8, 0.01)))
    plot = frontier_plot(Subject("p", table=ONE), curve, WIDE)
    (x1, y1), (x2, y2), (x3, y3) = (place for place in plot.places if place is not None)
    assert x1 < x2 < x3
    assert y1 < y2 < y3
    assert plot.path == f"M{x1:g} {y1:g}H{x2:g}V{y2:g}H{x3:g}V{y3:g}"


def test_points_of_negligible_or_no_error_lie_beyond_the_plot() -> None:
    curve = Frontier((point(2, 1.0), point(4, 1e-3), point(8, 1e-6), point(16, 0.0)))
    plot = frontier_plot(Subject("p", table=ONE), curve, WIDE)
    assert [place is None for place in plot.places] == [False, False, True, True]


def test_the_scales_reach_past_the_chosen_plan() -> None:
    curve = Frontier((point(2, 1.0), point(4, 1e-3), point(8, 1e-6)), chosen=point(6, 1e-4, "this plan"))
    x, y = frontier_scales(curve, [], WIDE)
    assert x.low == pytest.approx(2 / (6 * 1.15 / 2) ** 0.05)
    assert x.high == pytest.approx(6 * 1.15 * (6 * 1.15 / 2) ** 0.05)
    assert (x.start, x.end) == (WIDE.left, WIDE.width - WIDE.right)
    assert (y.low, y.high) == (pytest.approx(1e-4 / 1.25), pytest.approx(1.25))
    assert (y.start, y.end) == (WIDE.height - WIDE.bottom, WIDE.top)


def test_the_scales_hold_measured_errors_with_their_noise() -> None:
    curve = Frontier((point(2, 1.0), point(4, 0.5)))
    _, y = frontier_scales(curve, [{"held_out": 3.0, "held_out_stderr": 1.0}, {"held_out": None}], WIDE)
    assert (y.low, y.high) == (pytest.approx(0.5 / 1.6), pytest.approx(4.0 * 1.6))


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
    curve = Frontier((point(2, 1.0), point(8, 0.5)), uniform=tuple(point(4, 0.7, f"name-{n}") for n in range(40)))
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
