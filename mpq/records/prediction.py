"""Predictions of a whole plan's error from a sensitivity table. No torch.

additive      the sum of single-layer errors: right when the layers' effects on the output are uncorrelated
interactions  the mean over draws of (sum of v)^2, from the signed figures of method "fisher"; correlated effects add up or cancel
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpq.records.sensitivity import Sensitivity
from mpq.schemes import Scheme


def additive(table: Sensitivity, schemes: Mapping[str, Scheme]) -> float:
    """The sum of the single-layer errors."""
    return math.fsum(table.mean(name, scheme) for name, scheme in schemes.items())


def interactions(table: Sensitivity, schemes: Mapping[str, Scheme]) -> float | None:
    """The error with interactions; None if the table has no signed figures for some layer."""
    found = [table.products.get(pair) for pair in schemes.items()]
    kept = [products for products in found if products is not None]
    if len(kept) < len(found) or not kept:
        return None
    return float(np.square(np.sum(kept, axis=0)).mean())


@dataclass(frozen=True)
class Quality:
    """How well predictions agree with measurements of whole plans.

    Args:
        rank: Spearman's rank correlation.
        bias: mean of ln(predicted / measured): negative when predictions are too small.
        spread: standard deviation of the same.
    """

    rank: float
    bias: float
    spread: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON object, rounded; figures that are not finite are null."""
        return {name: round(value, 4) if math.isfinite(value) else None for name, value in vars(self).items()}


def quality(predicted: Sequence[float], measured: Sequence[float]) -> Quality:
    """Compare predictions with measurements; pairs that are not positive and finite are left out."""
    pairs = [(p, m) for p, m in zip(predicted, measured, strict=True) if p > 0 and m > 0 and math.isfinite(p) and math.isfinite(m)]
    if len(pairs) < 2:
        return Quality(math.nan, math.nan, math.nan)
    ratios = np.log([p / m for p, m in pairs])
    ranks = [np.argsort(np.argsort([pair[side] for pair in pairs])) for side in (0, 1)]
    return Quality(float(np.corrcoef(ranks[0], ranks[1])[0, 1]), float(ratios.mean()), float(ratios.std()))
