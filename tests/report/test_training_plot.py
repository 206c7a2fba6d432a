import pytest

from mpq.records.recovery_lines import Evaluated
from mpq.report.scale import Scale
from mpq.report.training_plot import training_plot

LINES = (
    Evaluated(0, 30, None, 0.4, 3.0, 1.0),
    Evaluated(10, 30, 0.5, 0.2, 3.0, 1.0),
    Evaluated(20, 30, 0.3, 0.1, 3.0, 1.0),
    Evaluated(30, 30, 0.2, 0.16, 3.0, 1.0),
)


def test_one_evaluation_is_no_curve() -> None:
    assert training_plot(LINES[:1], "wide") is None
    assert training_plot((), "wide") is None


def test_both_curves_run_over_the_steps_and_the_least_error_is_marked() -> None:
    plot = training_plot(LINES, "wide")
    assert plot is not None
    up, right = Scale(0.1 / 1.25, 0.5 * 1.25, 400 - 44, 14), [56.0, 339.3, 622.7, 906.0]
    assert plot.aside == f"M{right[0]:g} {up(0.4):g}L{right[1]:g} {up(0.2):g}L{right[2]:g} {up(0.1):g}L{right[3]:g} {up(0.16):g}"
    assert plot.loss == f"M{right[1]:g} {up(0.5):g}L{right[2]:g} {up(0.3):g}L{right[3]:g} {up(0.2):g}"
    assert plot.best == (right[2], up(0.1))
    assert [tick.label for tick in plot.x_ticks] == ["0", "10", "20", "30"]


def test_a_run_without_a_step_has_a_place_for_its_errors() -> None:
    plot = training_plot((LINES[0], LINES[0]), "narrow")
    assert plot is not None
    assert plot.loss == ""
    assert plot.frame.width == 340


@pytest.mark.parametrize(("last", "labels"), [(1, ["0", "1"]), (7, ["0", "2", "4", "6"]), (1200, ["0", "500", "1,000"])])
def test_steps_are_marked_at_round_numbers(last: int, labels: list[str]) -> None:
    plot = training_plot((LINES[0], Evaluated(last, last, 0.1, 0.1, 1.0, 1.0)), "wide")
    assert plot is not None
    assert [tick.label for tick in plot.x_ticks] == labels
