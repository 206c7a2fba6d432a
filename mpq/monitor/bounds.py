"""Time-uniform bounds of a mean: checking after every sample raises no more false alarms than checking once.

The polynomial stitched boundary of Howard, Ramdas, McAuliffe and Sekhon (Time-uniform, nonparametric, nonasymptotic confidence sequences,
Annals of Statistics 2021, equation 2): for values in [0, 1], with probability at least 1 - alpha, the mean of the first t values is within
0.85 sqrt((ln ln(2t) + 0.72 ln(10.4 / alpha)) / t) of its expectation for all t simultaneously.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class RunningMean:
    """The mean of values in [0, most], with bounds.

    Args:
        most: the largest value; larger ones are clamped to it.
        count: number of values added.
        total: their sum.
    """

    most: float = 1.0
    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        """Add a value, clamped to the range; NaN counts as the largest."""
        self.count += 1
        self.total += self.most if math.isnan(value) else min(max(value, 0.0), self.most)

    @property
    def mean(self) -> float:
        """The mean so far; NaN before the first value."""
        return self.total / self.count if self.count else math.nan

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Lower and upper bound of the expected value, valid at all times simultaneously with probability 1 - alpha."""
        if not self.count:
            return 0.0, self.most
        wide = self.most * radius(self.count, alpha)
        return max(0.0, self.mean - wide), min(self.most, self.mean + wide)


def radius(count: int, alpha: float) -> float:
    """Half the width of the bounds of a mean of `count` values in [0, 1]."""
    if count < 2:
        return 1.0
    return min(1.0, 0.85 * math.sqrt((math.log(math.log(2 * count)) + 0.72 * math.log(10.4 / alpha)) / count))
