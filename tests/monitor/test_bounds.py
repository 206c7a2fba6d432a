import math

import numpy as np
import pytest

from mpq.monitor.bounds import RunningMean, radius


def test_the_radius_is_that_of_the_paper() -> None:
    assert radius(1000, 0.05) == pytest.approx(0.85 * math.sqrt((math.log(math.log(2000)) + 0.72 * math.log(208)) / 1000))
    assert radius(1, 0.05) == 1.0


def test_looking_after_every_sample_raises_few_false_alarms() -> None:
    """500 runs of 2,000 fair coins: the bounds of one run leave the mean at any time in at most 5% of them."""
    coins = np.random.default_rng(0).integers(0, 2, (500, 2000))
    times = np.arange(1, 2001)
    apart = np.abs(coins.cumsum(axis=1) / times - 0.5)
    outside = apart > np.array([radius(int(time), 0.05) for time in times])
    assert outside.any(axis=1).mean() <= 0.05


def test_values_are_cut_to_their_range() -> None:
    mean = RunningMean(most=2.0)
    for value in (5.0, -1.0, math.nan, 1.0):
        mean.add(value)
    assert (mean.count, mean.mean) == (4, 1.25)
    assert mean.bounds(0.05) == (0.0, 2.0)


def test_bounds_close_in() -> None:
    mean = RunningMean(count=100_000, total=30_000.0)
    low, high = mean.bounds(0.01)
    assert 0.28 < low < 0.3 < high < 0.32
