import math
from itertools import pairwise

import pytest

from mpq.report.scale import Scale, Tick, bit_ticks, decade_ticks, log_range


def test_a_scale_keeps_what_lies_outside_at_its_ends() -> None:
    scale = Scale(1, 100, 0, 200)
    assert [scale(value) for value in (0.1, 1, 10, 100, 1000)] == [0, 0, 100, 200, 200]


def test_a_scale_may_run_downwards() -> None:
    scale = Scale(1e-4, 1, 300, 20)
    assert [scale(value) for value in (1e-4, 1e-2, 1)] == [300, 160, 20]


def test_ticks_of_bits_keep_their_distance() -> None:
    ticks = bit_ticks(Scale(3.9, 9.5, 56, 906), apart=40)
    assert {"4", "5", "6", "8"} <= {tick.label for tick in ticks}
    assert all(b.at - a.at >= 40 for a, b in pairwise(ticks))


def test_powers_of_two_get_their_ticks_first() -> None:
    assert bit_ticks(Scale(2, 8, 0, 100), apart=45) == [Tick(0, "2"), Tick(50, "4"), Tick(100, "8")]
    assert bit_ticks(Scale(2.1, 2.4, 0, 100)) == []


def test_many_decades_are_ticked_at_powers_of_ten_alone() -> None:
    ticks = decade_ticks(Scale(1e-6, 1, 0, 600))
    assert ticks == [
        Tick(0, "10⁻⁶"),
        Tick(100, "10⁻⁵"),
        Tick(200, "10⁻⁴"),
        Tick(300, "0.001"),
        Tick(400, "0.01"),
        Tick(500, "0.1"),
        Tick(600, "1"),
    ]


def test_few_decades_have_unlabelled_ticks_between() -> None:
    ticks = decade_ticks(Scale(0.01, 1, 0, 200))
    assert [tick.label for tick in ticks if tick.label] == ["0.01", "0.1", "1"]
    between = [tick.at for tick in ticks if not tick.label]
    assert between == [round(100 * (math.log10(value) + 2), 1) for value in (0.02, 0.05, 0.2, 0.5)]


def test_a_range_of_less_than_a_decade_still_has_labels() -> None:
    assert [tick.label for tick in decade_ticks(Scale(0.0015, 0.006, 0, 100)) if tick.label] == ["0.002", "0.005"]


def test_a_range_is_widened_by_its_margin() -> None:
    assert log_range([0.5, 8.0, 2.0], margin=2) == (0.25, 16.0)


def test_a_range_spans_at_most_so_many_decades_below_its_top() -> None:
    low, high = log_range([1e-12, 100.0], decades=4, margin=1)
    assert [low, high] == pytest.approx([0.01, 100.0])


def test_a_range_without_a_positive_figure_is_still_a_range() -> None:
    assert log_range([0.0, -1.0, math.inf, math.nan]) == (1e-6, 1.0)
    assert log_range([]) == (1e-6, 1.0)
