"""The paired test: is one plan's error significantly smaller than another's on the same samples? No torch.

The candidate must have the smaller mean, and one of two paired tests must reject chance at half of the level (Bonferroni, so that the pair
keeps the level): Student's t on the differences, and Wilcoxon's signed ranks. Errors per sample are heavy-tailed: a few samples near a
decision boundary contribute most of the mean. Then signed ranks detect a gain on nearly every sample that the t-test misses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Errors = np.ndarray[tuple[int], np.dtype[np.float64]]
SIGNIFICANT = 0.05  # one-sided level for decisions between finalists
PROMISING = 0.3  # one-sided level for a trial to become the incumbent, before held-out samples decide


@dataclass(frozen=True)
class Comparison:
    """Difference of two plans on the same samples.

    Args:
        difference: mean of (candidate - incumbent); negative if the candidate is better.
        stderr: its standard error over samples; infinite for fewer than two samples.
        ranks: probability of signed ranks this far below zero without a gain; 1.0 if there are too few samples.
        ranks_above: the same for a loss.
        samples: number of compared samples.
    """

    difference: float
    stderr: float
    ranks: float = 1.0
    ranks_above: float = 1.0
    samples: int = 0

    @property
    def better(self) -> bool:
        """Whether the candidate is significantly better."""
        return self.difference < 0 and self._rejects(SIGNIFICANT, self.ranks)

    @property
    def promising(self) -> bool:
        """Whether the candidate is better at the level for new incumbents."""
        return self.difference < 0 and self._rejects(PROMISING, self.ranks)

    @property
    def worse(self) -> bool:
        """Whether the candidate is significantly worse."""
        return self.difference > 0 and self._rejects(SIGNIFICANT, self.ranks_above)

    def _rejects(self, level: float, ranks: float) -> bool:
        if not math.isfinite(self.difference):
            return True
        beyond = self.samples > 1 and abs(self.difference) > t_quantile(1 - level / 2, self.samples) * self.stderr
        return beyond or ranks < level / 2


def t_quantile(level: float, samples: int) -> float:
    """The quantile of Student's t for a mean over at least two samples."""
    from scipy.special import stdtrit  # late: slow to import

    return float(stdtrit(samples - 1, level))


def mean_difference(candidate: Errors, incumbent: Errors) -> tuple[float, float]:
    """Mean of (candidate - incumbent) and its standard error; a NaN makes its plan infinitely worse."""
    if np.isnan(candidate).any():
        return math.inf, 0.0
    if np.isnan(incumbent).any():
        return -math.inf, 0.0
    difference, count = candidate - incumbent, len(candidate)
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(count)) if count > 1 else math.inf


def compare(candidate: Errors, incumbent: Errors) -> Comparison:
    """Compare per-sample errors of two plans; a NaN (an output that was not finite) makes its plan infinitely worse."""
    mean, stderr = mean_difference(candidate, incumbent)
    difference = candidate - incumbent
    if not math.isfinite(mean) or not bool(difference.any()):
        return Comparison(mean, stderr, samples=len(difference))
    from scipy.stats import wilcoxon  # late: slow to import

    moved = difference[difference != 0]
    below, above = (float(wilcoxon(moved, alternative=side).pvalue) for side in ("less", "greater"))
    return Comparison(mean, stderr, below, above, len(difference))
