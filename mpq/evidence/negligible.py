"""Which pairs of layer and scheme need no more samples, because their errors are known to be negligible. No torch.

After the first quarter of the samples, a pair whose error is known to be negligible - its mean and two standard errors below `NEGLIGIBLE`
of the median over layers of their largest error - is measured on no more.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import numpy as np

from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity, standard_error

NEGLIGIBLE = 1e-3
_FIRST_SHARE = 0.25
_FEWEST = 8
Pair = tuple[Layer, Scheme]


def negligible(table: Sensitivity, pairs: Iterable[Pair], first: int, samples: int) -> set[Pair]:
    """Those of `pairs` that need no figures from sample `first` on.

    Args:
        table: with figures of all pairs.
        pairs: those that would be measured next.
        first: the first sample of the next batch.
        samples: the number of all samples.
    """
    if first < max(_FEWEST, _FIRST_SHARE * samples):
        return set()
    limit = NEGLIGIBLE * _scale(table, first)
    return {pair for pair in pairs if _below(limit, table, *pair)}


def _scale(table: Sensitivity, samples: int) -> float:
    """The median over layers of their largest error on the first `samples`, also in an analysis that was killed among the next ones."""
    means = [[float(table.errors[layer.name, s][:samples].mean()) for s in table.header.candidates[layer.name]] for layer in table.layers]
    largest = [max(filter(math.isfinite, values), default=0.0) for values in means]
    return statistics.median(largest)


def _below(limit: float, table: Sensitivity, layer: Layer, scheme: Scheme) -> bool:
    """Whether a pair's error is known to be below `limit`."""
    errors = table.errors.get((layer.name, scheme))
    if errors is None or len(errors) < _FEWEST or not bool(np.isfinite(errors).all()):
        return False
    return float(errors.mean()) + 2 * standard_error(errors) < limit
