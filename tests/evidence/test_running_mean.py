import math

import numpy as np
import pytest

from mpq.evidence.running_mean import RunningMean, radius


def test_the_radius_is_that_of_the_paper() -> None:
    """A simpler bound in the paper is 1.7 sqrt(v (ln ln(2v) + 3.8)) + 3.4 ln ln(2v) + 13 over t at alpha = 0.05."""
    for spread in (10.0, 100.0, 1000.0):
        logs = math.log(math.log(2 * spread))
        above = (1.7 * math.sqrt(spread * (logs + 3.8)) + 3.4 * logs + 13) / 5000
        assert 0.75 * above < radius(5000, spread, 0.05) <= above
    assert radius(1, 0.0, 0.05) == 1.0


@pytest.mark.parametrize("chance", [0.5, 0.02])
def test_looking_after_every_sample_raises_few_false_alarms(chance: float) -> None:
    """300 runs of 1,000 coins: the bounds of one run leave the mean at any time in at most 5% of them."""
    draws = np.random.default_rng(0).random((300, 1000)) < chance
    wrong = 0
    for run in draws:
        mean = RunningMean()
        outside = False
        for value in run:
            mean.add(float(value))
            low, high = mean.bounds(0.05)
            outside = outside or not low <= chance <= high
        wrong += outside
    assert wrong / len(draws) <= 0.05


def test_values_are_cut_to_their_range() -> None:
    mean = RunningMean(most=2.0)
    for value in (5.0, -1.0, math.nan, 1.0):
        mean.add(value)
    assert (mean.count, mean.mean) == (4, 1.25)
    assert mean.spread == pytest.approx(1 + 4 + 1 + (1 - 4 / 3) ** 2)
    assert mean.bounds(0.05) == (0.0, 2.0)


def test_values_that_differ_little_have_narrow_bounds() -> None:
    calm, wild = (RunningMean(count=10_000, total=3000.0, spread=spread) for spread in (10.0, 2100.0))
    (low, high), (lowest, highest) = calm.bounds(0.01), wild.bounds(0.01)
    assert 0.295 < low < 0.3 < high < 0.305
    assert 0.27 < lowest < low
    assert high < highest < 0.33
