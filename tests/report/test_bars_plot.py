from itertools import pairwise

import pytest

from mpq.report.bars_plot import bars_plot
from mpq.report.report_input import Subject
from mpq.report.rows import facts_of
from mpq.report.scale import Tick
from mpq.search.run import search
from tests.small import linear, random_table, table


def test_there_is_no_plot_without_schemes() -> None:
    assert bars_plot(facts_of(Subject("p", table=random_table(0))), "wide") is None


def test_the_columns_show_bits_and_bytes() -> None:
    found = table([linear("a", 4, 64), linear("b", 8, 64)], {"a": {"int4": 1.0}, "b": {"int8": 1.0}})
    plot = bars_plot(facts_of(Subject("p", table=found, plan=search(found, "9bits").plan)), "wide")
    assert plot is not None
    assert (plot.frame.width, plot.frame.height) == (920, 350)
    assert plot.width == (920 - 56 - 14) / 2 - 2
    assert plot.per_bit == 190 / 9  # one bit more than the greatest scheme
    assert plot.per_byte == 90 / 528  # the greater layer: 512 codes and 8 scales of 2 bytes
    assert [(c.x, c.bits, c.bytes, c.scheme) for c in plot.columns] == [(56, 89.7, 23.2, 0), (481, 174.2, 90, 1)]
    assert plot.bits_ticks == [Tick(round(202 - bits * 190 / 9, 1), str(bits)) for bits in (0, 2, 4, 6, 8)]
    assert plot.bytes_ticks == [Tick(326, "0 bytes"), Tick(round(326 - 200 * 90 / 528, 1), "200 bytes"), Tick(257.8, "400 bytes")]


def test_many_bits_are_ticked_in_fours() -> None:
    found = table([linear("a", 4, 64)], {"a": {"fp16": 1.0}})
    plot = bars_plot(facts_of(Subject("p", table=found, plan=search(found, "16bits").plan)), "narrow")
    assert plot is not None
    assert [tick.label for tick in plot.bits_ticks] == ["0", "4", "8", "12", "16"]
    assert plot.frame.width == 340


@pytest.mark.parametrize("count", [1, 7, 300])
def test_columns_stand_in_order_and_inside(count: int) -> None:
    found = random_table(3, count=count)
    plot = bars_plot(facts_of(Subject("p", table=found, plan=search(found, "6bits").plan)), "narrow")
    assert plot is not None
    assert len(plot.columns) == count
    assert all(b.x - a.x >= plot.width for a, b in pairwise(plot.columns))
    assert plot.columns[-1].x + plot.width <= plot.frame.width - plot.frame.right + 0.01
    assert all(0 < column.bits <= 190 and 0 < column.bytes <= 90 for column in plot.columns)
