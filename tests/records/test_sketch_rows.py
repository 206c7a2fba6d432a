import math

import numpy as np
import pytest

from mpq.records.sketch import BINS, Sketch
from mpq.records.sketch_rows import is_row, read_row, row_of


def test_large_counts_keep_three_digits() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[:9] = [1, 2047, 2048, 2049, 4095, 123_456_789, 2**40 + 12_345, 2**42 - 1, 2**60]
    row = row_of(Sketch(counts, -1.5, 2.25, 3, 10**12), 0.25, 288)
    found, noise = read_row(row)
    assert (len(row), noise) == (288, 0.25)
    assert found.counts[:5].tolist() == [1, 2047, 2048, 2050, 4096]
    assert np.allclose(found.counts[5:8], counts[5:8], rtol=5e-4)
    assert found.counts[8] == 2047 << 31
    assert (found.minimum, found.maximum, found.not_finite, found.samples) == (-1.5, 2.25, 3, 10**12)


def test_a_sketch_that_saw_nothing_has_no_range() -> None:
    found, _ = read_row(row_of(Sketch(), 0.0, 288))
    assert (found.minimum, found.maximum, found.samples) == (math.inf, -math.inf, 0)


@pytest.mark.parametrize(("low", "high", "noise"), [(2.0, 1.0, 0.0), (math.nan, 1.0, 0.0), (0.0, math.inf, 0.0), (0.0, 1.0, -1.0)])
def test_ranges_and_noises_that_cannot_be_are_seen(low: float, high: float, noise: float) -> None:
    counts = np.ones(BINS, np.int64)
    assert is_row(row_of(Sketch(counts, 0.0, 1.0), 0.5, 288))
    assert not is_row(row_of(Sketch(counts, low, high), noise, 288))
