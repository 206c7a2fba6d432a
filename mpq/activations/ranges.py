"""The range of a tensor from its histogram: what lies outside is clipped, what lies inside is rounded to 256 levels.

`minmax` clips nothing. `percentile` leaves out one value in ten thousand. `mse` has the least squared error. `entropy` has the least
divergence between the histogram and what 256 levels keep of it, as in TensorRT's calibration (Migacz, 2017). The effect on the model's
output decides between them, since none is best everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mpq.activations.histogram import Histogram
from mpq.formats.activations import LEVELS

METHODS = ("minmax", "percentile", "mse", "entropy")
_SHARE = 0.9999
_STEPS = 64
_LEAST = 1 / 32  # of the whole range


class Range(NamedTuple):
    """Step and zero point of uint8 codes."""

    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        """The value of code 0."""
        return -self.scale * self.zero_point

    @property
    def high(self) -> float:
        """The value of code 255."""
        return self.scale * (LEVELS - self.zero_point)


def range_between(low: float, high: float) -> Range:
    """The range from `low` to `high`, widened to hold 0, whose scale is exact in float32."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(str(np.float32(max((high - low) / LEVELS, 1e-30))))
    return Range(scale, min(LEVELS, max(0, round(-low / scale))))


def ranges_of(histogram: Histogram) -> dict[str, Range]:
    """A range by each of `METHODS`."""
    whole = range_between(histogram.low, histogram.high)
    tail = 1 - _SHARE
    both = histogram.low < 0 < histogram.high
    low = max(histogram.low, histogram.quantile(tail / 2 if both else tail)) if histogram.low < 0 else 0.0
    high = min(histogram.high, histogram.quantile(1 - (tail / 2 if both else tail))) if histogram.high > 0 else 0.0
    found = {"minmax": whole, "percentile": range_between(low, high)}
    found["mse"] = least_squares(histogram)
    found["entropy"] = min(_shrunk(histogram), key=lambda each: _divergence(histogram, each))
    return found


def least_squares(histogram: Histogram) -> Range:
    """The range of least squared error."""
    present = histogram.counts > 0
    values, counts = histogram.centers[present], histogram.counts[present].double()
    return min(_shrunk(histogram), key=lambda each: float((counts * (_codes(values, each) * each.scale - values).square()).sum()))


def squared_error(histogram: Histogram, chosen: Range) -> float:
    """The mean squared error that clipping and rounding to a range cost."""
    return sum(parts_of_error(histogram, chosen))


def parts_of_error(histogram: Histogram, chosen: Range) -> tuple[float, float]:
    """The mean squared error of clipping, and that of rounding."""
    centers, weights = histogram.centers, histogram.counts.double() / max(1, int(histogram.counts.sum()))
    error = (weights * (_codes(centers, chosen) * chosen.scale - centers).square()).cumsum(0)
    inside = (centers >= chosen.low - chosen.scale / 2) & (centers <= chosen.high + chosen.scale / 2)
    steps = torch.diff(error, prepend=torch.zeros(1, dtype=error.dtype))
    return float(steps[~inside].sum()), float(steps[inside].sum())


def _codes(values: Tensor, chosen: Range) -> Tensor:
    """Codes of values, 0 for the value 0."""
    return (values / chosen.scale).round().clamp(-chosen.zero_point, LEVELS - chosen.zero_point)


def _shrunk(histogram: Histogram) -> Iterator[Range]:
    """Ranges from the whole one down to a share of it, in equal ratios; both ends shrink alike, and each by itself."""
    factors = [_LEAST ** (step / _STEPS) for step in range(_STEPS)]
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    for factor in factors:
        yield range_between(low * factor, high * factor)
        if low < 0 < high:
            yield range_between(low, high * factor)
            yield range_between(low * factor, high)


def _divergence(histogram: Histogram, chosen: Range) -> float:
    """KL of the clipped histogram and the one that is even inside of each level."""
    counts, codes = histogram.counts.double(), (_codes(histogram.centers, chosen) + chosen.zero_point).long()
    counts[len(counts) // 2] = counts[len(counts) // 2 + 1]  # zeros, half of all after a ReLU, are exact in any range
    levels = torch.zeros(LEVELS + 1, dtype=torch.float64).index_add_(0, codes, counts)
    inside = (histogram.centers >= chosen.low - chosen.scale / 2) & (histogram.centers <= chosen.high + chosen.scale / 2)
    kept = torch.where(inside, counts, 0.0)
    filled = (kept > 0).double()
    sizes = torch.zeros_like(levels).index_add_(0, codes, filled)
    within = torch.zeros_like(levels).index_add_(0, codes, kept)
    spread = torch.where(filled > 0, (within / sizes.clamp(min=1))[codes], 0.0)
    clipped = levels - within  # what lies outside counts at the ends, in the reference only
    first, last = int(inside.long().argmax()), len(inside) - 1 - int(inside.long().flip(0).argmax())
    kept[first] += clipped[0]
    kept[last] += clipped[-1]
    present = kept > 0
    reference, model = kept[present] / kept.sum(), (spread[present] + 1e-9) / (spread.sum() + 1e-9)
    value = float((reference * (reference / model).log()).sum())
    return value if math.isfinite(value) else math.inf
