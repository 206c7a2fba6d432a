"""A histogram of a tensor's values, in memory that does not grow: where values exceed its reach, the reach doubles and bins are merged."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 8192
_HALF = BINS // 2


class Histogram:
    """Counts of values in `BINS` equal bins from -reach to reach.

    Attributes:
        counts: int64 [BINS].
        reach: the largest magnitude that has a bin; 0 before the first value that is not 0.
        low, high: the least and the greatest finite value.
        values: how many finite values were added.
        not_finite: how many values were NaN or infinite.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.int64)
        self.reach, self.low, self.high = 0.0, float("inf"), float("-inf")
        self.values = self.not_finite = 0

    def add(self, tensor: Tensor) -> None:
        """Count the values of `tensor`."""
        values = tensor.detach().flatten().float()
        if not bool(torch.isfinite(values).all()):
            self.not_finite += int((~torch.isfinite(values)).sum())
            values = values[torch.isfinite(values)]
        if not values.numel():
            return
        low, high = (float(each) for each in torch.aminmax(values))
        self.low, self.high, self.values = min(self.low, low), max(self.high, high), self.values + values.numel()
        self._stretch(max(abs(low), abs(high)))
        if self.reach:
            self.counts += torch.histc(values, BINS, -self.reach, self.reach).long().cpu()
        else:
            self.counts[_HALF] += values.numel()

    @property
    def centers(self) -> Tensor:
        """The middle of each bin, float64 [BINS]."""
        width = self.reach / _HALF
        return (torch.arange(BINS, dtype=torch.float64) - _HALF + 0.5) * width

    @property
    def is_constant(self) -> bool:
        """Whether all values are equal, so that nothing is to be rounded."""
        return self.low >= self.high

    def quantile(self, share: float) -> float:
        """The value below which this share of the values lies, to the width of a bin."""
        total = self.counts.cumsum(0)
        place = int(torch.searchsorted(total, torch.tensor(share * float(total[-1]), dtype=torch.float64).ceil().long()))
        return float(self.centers[min(place, BINS - 1)])

    def coarse(self, bars: int) -> list[int]:
        """Counts in `bars` equal parts from the least to the greatest value; a bin counts where its middle lies."""
        span = (self.high - self.low) or 1.0
        places = ((self.centers - self.low) / span * bars).long().clamp(0, bars - 1)
        found: list[int] = torch.zeros(bars, dtype=torch.int64).index_add_(0, places, self.counts).tolist()
        return found

    def _stretch(self, magnitude: float) -> None:
        if self.reach == 0.0:
            self.reach = magnitude
        while magnitude > self.reach:
            merged = self.counts.view(-1, 2).sum(1)
            self.counts = torch.zeros_like(self.counts)
            self.counts[_HALF // 2 : _HALF // 2 + _HALF] = merged
            self.reach *= 2
