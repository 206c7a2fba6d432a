"""Time-uniform bounds of a mean: checking after every sample raises no more false alarms than checking once.

The empirical Bernstein confidence sequence of Howard, Ramdas, McAuliffe and Sekhon (Time-uniform, nonparametric, nonasymptotic
confidence sequences, Annals of Statistics 2021, theorem 4) with their polynomial stitched boundary (equation 10, eta = 2, s = 1.4): with
probability at least 1 - alpha, the mean of the first t values in [0, 1] is within u(V) / t of its expectation for all t simultaneously,
where V is the sum of squared differences between each value and the mean of those before it. Little variance gives narrow bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_ETA, _S = 2.0, 1.4
_ZETA = 3.1055472779775810  # the Riemann zeta function at _S
_ROOT = (_ETA**0.25 + _ETA**-0.25) / math.sqrt(2)
_LINEAR = (math.sqrt(_ETA) + 1) / 2


@dataclass
class RunningMean:
    """The mean of values in [0, most], with bounds.

    Args:
        most: the largest value; larger ones are clamped to it.
        count: number of values added.
        total: their sum.
        spread: sum of the squared differences between each value and the mean of those before it (before the first: half of `most`).
    """

    most: float = 1.0
    count: int = 0
    total: float = 0.0
    spread: float = 0.0

    def add(self, value: float) -> None:
        """Add a value, clamped to the range; NaN counts as the largest."""
        clamped = self.most if math.isnan(value) else min(max(value, 0.0), self.most)
        self.spread += (clamped - (self.mean if self.count else self.most / 2)) ** 2
        self.count += 1
        self.total += clamped

    @property
    def mean(self) -> float:
        """The mean so far; NaN before the first value."""
        return self.total / self.count if self.count else math.nan

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Lower and upper bound of the expected value, valid at all times simultaneously with probability 1 - alpha."""
        if not self.count:
            return 0.0, self.most
        wide = self.most * radius(self.count, self.spread / self.most**2, alpha)
        return max(0.0, self.mean - wide), min(self.most, self.mean + wide)


def radius(count: int, spread: float, alpha: float) -> float:
    """Half the width of the bounds of a mean of `count` values in [0, 1] with the given sum of squared differences."""
    variance = max(spread, 1.0)
    level = _S * math.log(math.log(_ETA * variance)) + math.log(2 * _ZETA / (alpha * math.log(_ETA) ** _S))
    return min(1.0, (math.sqrt(_ROOT**2 * variance * level + (_LINEAR * level) ** 2) + _LINEAR * level) / count)
