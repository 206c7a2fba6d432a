"""What every format must keep, and what a new one needs: nothing but its own file."""

import math

import pytest

from mpq.formats.base import Format
from mpq.formats.integers import FORMATS as INTEGERS
from mpq.formats.registry import formats, names

EVERY = list(formats().values())
LEVELS = [formats()[name] for name in names("levels")]


def title(element: Format) -> str:
    return element.name


@pytest.mark.parametrize("element", LEVELS, ids=title)
def test_levels_are_distinct_numbers_with_the_largest_finite(element: Format) -> None:
    used = [level for level in element.levels if not math.isnan(level)]
    assert all(map(math.isfinite, used))
    assert len(set(used)) >= len(used) - 1, "zero alone may have two codes"
    assert element.largest == max(used) > 0


@pytest.mark.parametrize("element", LEVELS, ids=title)
def test_levels_looked_up_by_cells_lie_within_the_cells(element: Format) -> None:
    if element.cells:
        assert max(map(abs, element.levels)) <= 1


@pytest.mark.parametrize("element", INTEGERS, ids=title)
def test_integers_try_both_signs_and_the_scale_that_uses_every_code(element: Format) -> None:
    fullest = (2 ** (element.bits - 1) - 1) / 2 ** (element.bits - 1)
    assert {-1.0, fullest, -fullest} < set(element.clip_ratios)
    assert 1.0 not in element.clip_ratios, "the search starts there"
    assert sorted(map(abs, element.clip_ratios), reverse=True) == list(map(abs, element.clip_ratios))
