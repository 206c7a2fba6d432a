import math
import re

import pytest

from mpq.notebook import ROWS, html_page, sparkline


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([3.0], "▅"),
        ([2.0, 2.0], "▅▅"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "▁▂▃▄▅▆▇█"),
        ([1.0, math.nan, 2.0, math.inf], "▁ █ "),
    ],
)
def test_a_sparkline_has_a_bar_for_each_value(values: list[float], expected: str) -> None:
    assert sparkline(values) == expected


def test_many_values_are_averaged_in_order() -> None:
    assert sparkline([float(number // 100) for number in range(4800)])[::47] == "▁█"
    assert len(sparkline([float(number) for number in range(10_000)])) == 48


def test_a_page_is_small_says_what_it_leaves_out_and_names_are_text() -> None:
    rows = [[f"<b>layer\x1b{number}</b>" + "x" * 1000, "1"] for number in range(5000)]
    page = html_page("5,000 <layers>", ["layer", "bytes"], rows, bars=("▁█", "by <layer>"))
    assert len(page) < 4000
    assert page.count("<tr>") == 1 + ROWS
    assert "and 4,990 more" in page
    assert not re.search("<b>layer|\x1b|<layer", page)
    assert "5,000 &lt;layers&gt;" in page


def test_a_short_page_leaves_out_nothing() -> None:
    assert html_page("all", ["a"], [["1"]]) == (
        '<div><b>all</b><table><thead><tr><th style="text-align:left">a</th></tr></thead><tbody>'
        '<tr><td style="text-align:left">1</td></tr></tbody></table></div>'
    )
