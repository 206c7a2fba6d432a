"""Estimates plans' errors from all evidence together: prediction, calibration samples, held-out samples. No torch.

The unknowns are the logarithms of the plans' true mean errors. Each kind of evidence informs about them, with its own noise:

    predictions   right up to a common factor and an independent deviation, whose size the analysis's self-check has measured
    calibration   the log of the mean over the samples; its covariance over plans comes from the same samples (delta method), so that
                  what makes a sample hard for all plans cancels between them. Plans that a search has tuned on these samples look
                  better there than they are (the winner's curse), so their values are raised and trusted less
    held-out      the same on samples that no stage has seen

All are assumed to be normal on the log scale, and their precisions add up. Errors per sample have heavy tails: a few samples contribute
most of a mean, and a small set of samples may lack them. So every plan's mean over n samples has an independent deviation of `TAIL /
sqrt(n)` in addition to the one estimated from the samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mpq.evidence.paired_test import SIGNIFICANT, Errors, t_quantile

TAIL = 0.5
_CURSE = 0.5  # standard errors by which selection on the calibration samples flatters a plan; the same number again is its uncertainty
_UNCHECKED = 0.5  # spread of predictions if no self-check has measured it
_LEAST_SPREAD, _MOST_SPREAD = 0.1, 3.0
_MOST_SAMPLES = 1e12  # most samples that a message recommends
_FLOOR = 1e-9  # share of the largest mean error below which two plans count as equal

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Evidence:
    """The evidence about one plan.

    Args:
        predicted: its error by the table.
        calibration: error on each calibration sample.
        held_out: error on each held-out sample.
        tuned: whether it was selected by its error on the calibration samples.
    """

    predicted: float
    calibration: Errors
    held_out: Errors
    tuned: bool = False


@dataclass(frozen=True)
class Posterior:
    """Normal distribution of the log errors of some plans.

    Args:
        mean: [plans].
        covariance: [plans, plans].
    """

    mean: Vector
    covariance: Matrix

    @property
    def expected(self) -> Vector:
        """The expected error of each plan; more uncertainty makes it larger."""
        found: Vector = np.exp(self.mean + np.diag(self.covariance) / 2)
        return found

    def probability(self, plan: int, other: int) -> float:
        """The probability that the first plan's error is below the other's."""
        variance = self.covariance[plan, plan] + self.covariance[other, other] - 2 * self.covariance[plan, other]
        gain = float(self.mean[other] - self.mean[plan])
        if variance <= 1e-18:
            return 0.5 if gain == 0 else float(gain > 0)
        return NormalDist().cdf(gain / math.sqrt(variance))


def posterior(plans: Sequence[Evidence], *, spread: float | None = None) -> Posterior:
    """The distribution of the plans' log errors.

    Args:
        plans: at least one, with finite errors.
        spread: standard deviation of ln(predicted / measured) over plans, from the self-check; None if there was none.
    """
    floor = _FLOOR * max(max(float(plan.calibration.mean()), float(plan.held_out.mean())) for plan in plans) or 1e-300
    size = len(plans)
    precision, weighted = np.zeros((size, size)), np.zeros(size)
    flattered = np.array([plan.tuned for plan in plans])
    for kind in ("calibration", "held_out"):
        errors = np.stack([getattr(plan, kind) for plan in plans])
        logs, noise = _log_means(errors, floor)
        if kind == "calibration" and flattered.any():
            curse = np.where(flattered, _CURSE * _against_first(noise), 0.0)
            logs, noise = logs + curse, noise + np.diag(np.square(curse))
        inverse = np.linalg.inv(noise)
        precision += inverse
        weighted += inverse @ logs
    predictions = np.log(np.maximum([plan.predicted for plan in plans], floor))
    deviation = min(max(_LEAST_SPREAD, _UNCHECKED if spread is None else spread), _MOST_SPREAD)
    common = np.eye(size) - 1 / size  # a factor common to all predictions does not matter
    precision += common / deviation**2
    weighted += common @ predictions / deviation**2
    covariance: Matrix = np.linalg.inv(precision).astype(np.float64)
    return Posterior(covariance @ weighted, covariance)


def samples_to_tell(better: Errors, worse: Errors) -> int | None:
    """The number of such samples that a paired test needs to tell two plans apart; None if these suffice, or if no number would."""
    difference = worse - better
    count, mean = len(difference), float(difference.mean())
    if count < 2 or mean <= 0:
        return None
    with np.errstate(over="ignore"):
        unit = float((difference.std(ddof=1) / mean) ** 2)
    if not math.isfinite(unit) or unit > _MOST_SAMPLES:
        return None
    level = 1 - SIGNIFICANT / 2
    needed = max(2, math.ceil(NormalDist().inv_cdf(level) ** 2 * unit))
    while t_quantile(level, needed) ** 2 * unit > needed:  # its quantiles are slightly larger than the normal ones
        needed += 1
    return needed if needed > count else None


def _log_means(errors: Matrix, floor: float) -> tuple[Vector, Matrix]:
    """The logs of the mean errors [plans], and their covariance from the spread over samples."""
    means = np.maximum(errors.mean(1), floor)
    count = errors.shape[1]
    relative = (errors - errors.mean(1, keepdims=True)) / means[:, None]
    covariance = relative @ relative.T / max(1, count - 1) / count if count > 1 else np.ones((len(means), len(means)))
    return np.log(means), covariance + np.eye(len(means)) * TAIL**2 / count


def _against_first(noise: Matrix) -> Vector:
    """The standard error of each plan's difference from the first one."""
    variance = np.diag(noise) + noise[0, 0] - 2 * noise[0]
    found: Vector = np.sqrt(np.maximum(variance, 0.0))
    return found
