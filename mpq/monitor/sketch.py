"""A sketch of a tensor's values in less than a kilobyte: a histogram of magnitudes by half octave, the range, and the number of values that
are not finite.

Two sketches of one tensor are compared by the population stability index, the sum over bins of (p - q) ln(p / q): below 0.1 is usually
called stable, above 0.25 drifted. Each bin is smoothed by half a value, so that empty bins have little weight if few values were seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

STEPS = 64
"""Bins of magnitudes of one sign, two to an octave."""
BINS = 2 * STEPS + 1
_LOWEST = -16  # log2 of the smallest magnitude that has a bin; smaller ones count as zero
_MOST = 4096  # values of a tensor that are examined, evenly spaced


@dataclass
class Sketch:
    """Counts of the values of one tensor over many calls.

    Args:
        counts: values per bin: negative ones from large to small magnitudes, zeros, positive ones from small to large.
        minimum: smallest finite value; infinity before the first.
        maximum: largest finite value; minus infinity before the first.
        not_finite: number of values that are NaN or infinite.
        calls: number of tensors added.
    """

    counts: list[int] = field(default_factory=lambda: [0] * BINS)
    minimum: float = math.inf
    maximum: float = -math.inf
    not_finite: int = 0
    calls: int = 0

    def add(self, tensor: Tensor) -> None:
        """Count the values of a tensor; for a large one, evenly spaced values only. Memory use is constant."""
        flat = tensor.detach().reshape(-1)
        step = -(-len(flat) // _MOST)
        values = flat[::step].to(torch.float32).cpu()
        finite = values[values.isfinite()]
        self.calls += 1
        self.not_finite += len(values) - len(finite)
        if len(finite):
            self.minimum, self.maximum = min(self.minimum, float(finite.min())), max(self.maximum, float(finite.max()))
            found = np.bincount(_bins(finite.numpy()), minlength=BINS)
            self.counts = (np.array(self.counts) + found).tolist()

    @property
    def values(self) -> int:
        """Number of finite values that were counted."""
        return sum(self.counts)

    def merged(self, other: Sketch) -> Sketch:
        """The sketch of the values of both."""
        counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        low, high = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        return Sketch(counts, low, high, self.not_finite + other.not_finite, self.calls + other.calls)

    def beyond(self, other: Sketch) -> float:
        """The share of values in bins outside the range of `other`: the values that a range calibrated on `other` clips."""
        seen = [number for number, count in enumerate(other.counts) if count]
        if not seen or not self.values:
            return 0.0
        inside = sum(self.counts[seen[0] : seen[-1] + 1])
        return 1.0 - inside / self.values

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; runs of empty bins at both ends are left out."""
        used = [number for number, count in enumerate(self.counts) if count]
        first, last = (used[0], used[-1] + 1) if used else (0, 0)
        bounds = {} if not used else {"minimum": self.minimum, "maximum": self.maximum}
        return {"first": first, "counts": self.counts[first:last], **bounds, "not_finite": self.not_finite, "calls": self.calls}


def sketch_in(record: dict[str, Any]) -> Sketch:
    """The inverse of `to_dict`."""
    counts, first = [0] * BINS, int(record["first"])
    found = [int(count) for count in record["counts"]]
    counts[first : first + len(found)] = found
    minimum, maximum = record.get("minimum", math.inf), record.get("maximum", -math.inf)
    return Sketch(counts, float(minimum), float(maximum), int(record["not_finite"]), int(record["calls"]))


def stability_index(wanted: Sketch, found: Sketch) -> float:
    """The population stability index of two sketches; 0 if either is empty."""
    if not wanted.values or not found.values:
        return 0.0
    first, second = np.array(wanted.counts) + 0.5, np.array(found.counts) + 0.5
    used = (np.array(wanted.counts) + np.array(found.counts)) > 0
    p, q = first[used] / first[used].sum(), second[used] / second[used].sum()
    return float(((p - q) * np.log(p / q)).sum())


def _bins(values: Any) -> Any:
    """The bin of each value."""
    magnitude = np.abs(values)
    with np.errstate(divide="ignore"):
        step = np.floor(2 * (np.log2(magnitude) - _LOWEST))
    step = np.where(magnitude > 0, step, -1)
    place = np.where(step < 0, 0, np.minimum(step, STEPS - 1) + 1).astype(np.int64)
    return STEPS + np.where(values < 0, -place, place)
