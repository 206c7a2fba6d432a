import math

import pytest

from mpq.report.heat_plot import heat_plot
from mpq.report.report_input import Subject
from mpq.report.rows import LEVELS, facts_of, level_of
from mpq.search.run import search
from tests.small import linear, table

TABLE = table(
    [linear("a", 4, 64), linear("b", 4, 64)],
    {"a": {"int4": 1.0, "int8": 1e-4}, "b": {"int4": 0.01}},
)


def test_cells_stand_by_layer_and_scheme_and_the_chosen_one_is_known() -> None:
    plot = heat_plot(facts_of(Subject("p", table=TABLE, plan=search(TABLE, "9bits").plan)))
    assert plot.columns == ("int4", "int8")
    assert [row.name for row in plot.rows] == ["a", "b"]
    assert [[None if cell is None else cell.error for cell in row.cells] for row in plot.rows] == [[1.0, 1e-4], [0.01, None]]
    assert [row.chosen for row in plot.rows] == [1, 0]


def test_without_a_plan_nothing_is_chosen_and_without_a_table_there_are_no_columns() -> None:
    assert [row.chosen for row in heat_plot(facts_of(Subject("t", table=TABLE))).rows] == [None, None]
    assert heat_plot(facts_of(Subject("p", plan=search(TABLE, "9bits").plan))).columns == ()


def test_the_key_names_the_errors_of_every_color_in_equal_ratios() -> None:
    plot = heat_plot(facts_of(Subject("t", table=TABLE)))
    assert plot.bounds == pytest.approx([1e-4 * 10 ** (0.4 * step) for step in range(LEVELS + 1)])
    assert [level for level, _ in plot.key] == list(range(LEVELS))
    assert [text for _, text in plot.key][:2] == ["under 2.5e-4", "2.5e-4 to 6.3e-4"]
    assert plot.key[-1][1] == "0.4 or more"


def test_every_error_has_the_color_whose_bounds_hold_it() -> None:
    plot = heat_plot(facts_of(Subject("t", table=TABLE)))
    for low, high, level in zip(plot.bounds, plot.bounds[1:], range(LEVELS), strict=False):
        assert level_of(math.sqrt(low * high), plot.bounds[0], plot.bounds[-1]) == level


def test_equal_errors_have_no_key() -> None:
    same = table([linear("a", 4, 64)], {"a": {"int4": 0.5, "int8": 0.5}})
    assert heat_plot(facts_of(Subject("t", table=same))).key == []
