from mpq.formats.scheme import parse_scheme
from mpq.records.latency import LatencyFacts
from mpq.records.time_frontier import Reached, TimeFrontier
from mpq.report.render import render
from mpq.report.report_input import Subject
from mpq.report.times_plot import timed
from mpq.search.run import search
from tests.small import linear, table

FACTS = LatencyFacts("openvino", "abacus, 1 processors", "2", 1, "ab" * 32, 4, 0.0, "2026.4.1", activations=True)
INT4, INT8 = parse_scheme("int4"), parse_scheme("int8")


def subject() -> Subject:
    found = table([linear("a", 8, 16), linear("b", 8, 16)], {"a": {"int4": 0.5, "int8": 0.1}, "b": {"int8": 0.2}})
    times = {("a", INT4): 1.0, ("a", INT8): 4.0, ("b", INT8): 2.0}
    profile = TimeFrontier("m.latency.csv", FACTS, times, (Reached(3.0, 0.7), Reached(6.0, 0.3)), Reached(6.0, 0.3))
    return Subject("plan.yaml", table=found, plan=search(found, "32bits", trials=0).plan, times=(profile,))


def test_each_layer_has_its_times_and_the_chosen_one() -> None:
    (found,) = timed(subject())
    assert found.about == "openvino 2026.4.1 on abacus, 1 processors, 1 thread, 4 samples at once, integer activations (m.latency.csv)"
    assert found.schemes == ["int4", "int8"]
    assert found.rows == [("a", [(1.0, False), (4.0, True)]), ("b", [(None, False), (2.0, True)])]


def test_the_line_falls_from_left_to_right_and_ends_at_the_plan() -> None:
    for plot in timed(subject())[0].plots:
        (x0, y0), (x1, y1) = plot.corners
        assert x0 < x1
        assert y0 < y1  # down the page
        assert plot.chosen == (x1, y1)
        assert plot.line == f"M{x0:g} {y0:g}L{x1:g} {y1:g}"


def test_the_page_has_times_only_with_a_profile() -> None:
    page = render(subject())
    assert "milliseconds of a call" in page
    assert "<strong>4</strong>" in page
    assert "milliseconds of a call" not in render(Subject("plan.yaml", plan=subject().plan))
