import re

import pytest

from mpq.report.colors import DARK, HEAT_DARK, HEAT_LIGHT, LIGHT, ordered, ramp
from mpq.report.rows import LEVELS
from tests.small import schemes


def test_schemes_are_ordered_by_bits_then_by_finer_groups() -> None:
    mixed = schemes("fp16", "int4-g32", "int8", "int4", "int2", "int4-g128", "int4-asym", "int4")
    assert [str(s) for s in ordered(mixed)] == ["int2", "int4", "int4-g128", "int4-g32", "int4-asym", "int8", "fp16"]


@pytest.mark.parametrize("stops", [LIGHT, DARK])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_a_ramp_has_as_many_colors_as_asked_for(stops: tuple[tuple[int, int, int], ...], count: int) -> None:
    colors = ramp(count, stops)
    assert len(set(colors)) == count
    assert all(re.fullmatch(r"#[0-9a-f]{6}", color) for color in colors)


def test_a_ramp_runs_from_the_first_stop_to_the_last_in_equal_steps() -> None:
    stops = ((0, 0, 0), (100, 200, 40), (200, 0, 255))
    assert ramp(5, stops) == ["#000000", "#326414", "#64c828", "#966494", "#c800ff"]


def test_a_single_color_comes_from_the_middle() -> None:
    assert ramp(1, ((0, 0, 0), (100, 200, 40), (255, 255, 255))) == ["#64c828"]
    assert ramp(0, LIGHT) == []


def test_errors_have_a_color_for_each_level_on_light_and_dark_pages() -> None:
    assert len(HEAT_LIGHT) == len(HEAT_DARK) == LEVELS
    assert all(re.fullmatch(r"#[0-9a-f]{6}", color) for color in HEAT_LIGHT + HEAT_DARK)
