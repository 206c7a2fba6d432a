"""The paired test: is one plan's error smaller than another's on the same samples, beyond noise? No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Errors = np.ndarray[tuple[int], np.dtype[np.float64]]
SIGNIFICANT = 1.645  # one-sided 5%: what decides between finalists
PROMISING = 1.0  # one-sided 16%: what a trial must show to become the incumbent, before it is judged on held-out samples


@dataclass(frozen=True)
class Comparison:
    """Difference of two plans on the same samples.

    Args:
        difference: mean of (candidate - incumbent); negative when the candidate is better.
        stderr: its standard error over samples; infinite for fewer than two samples.
    """

    difference: float
    stderr: float

    @property
    def better(self) -> bool:
        """Whether the candidate is better beyond noise."""
        return self.difference < 0 and -self.difference > SIGNIFICANT * self.stderr

    @property
    def promising(self) -> bool:
        """Whether the candidate is better by at least one standard error."""
        return self.difference < 0 and -self.difference > PROMISING * self.stderr

    @property
    def worse(self) -> bool:
        """Whether the candidate is worse beyond noise."""
        return self.difference > SIGNIFICANT * self.stderr


def compare(candidate: Errors, incumbent: Errors) -> Comparison:
    """Compare per-sample errors of two plans; a NaN (an output that was not finite) makes its plan infinitely worse."""
    if np.isnan(candidate).any():
        return Comparison(math.inf, 0.0)
    if np.isnan(incumbent).any():
        return Comparison(-math.inf, 0.0)
    difference = candidate - incumbent
    count = len(difference)
    stderr = float(difference.std(ddof=1) / math.sqrt(count)) if count > 1 else math.inf
    return Comparison(float(difference.mean()), stderr)
