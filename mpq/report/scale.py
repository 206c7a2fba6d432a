"""Scales and ticks of plots: from values to positions on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mpq.report.words import power

_BITS = (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 32)


@dataclass(frozen=True)
class Scale:
    """A logarithmic scale: `low` lies at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of `value`, clamped to the ends."""
        inside = min(max(value, self.low), self.high)
        part = math.log(inside / self.low) / math.log(self.high / self.low)
        return round(self.start + part * (self.end - self.start), 1)


@dataclass(frozen=True)
class Tick:
    """A line across the plot; minor ones have no label."""

    at: float
    label: str


def bit_ticks(scale: Scale, *, apart: float = 34) -> list[Tick]:
    """Ticks at round numbers of bits, at least `apart` from each other."""
    kept: list[Tick] = []
    whole_first = sorted((b for b in _BITS if scale.low <= b <= scale.high), key=lambda b: (not math.log2(b).is_integer(), b % 1 > 0, b))
    for bits in whole_first:
        at = scale(bits)
        if all(abs(at - other.at) >= apart for other in kept):
            kept.append(Tick(at, f"{bits:g}"))
    return sorted(kept, key=lambda tick: tick.at)


def decade_ticks(scale: Scale) -> list[Tick]:
    """Ticks at powers of ten, with unlabeled ones at 2 and 5 if few powers fit."""
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    tens = [Tick(scale(10.0**e), power(e)) for e in range(first, last + 1) if scale.low <= 10.0**e <= scale.high]
    if last - first > 4:
        return tens
    between = [(e, m) for e in range(first, last + 1) for m in (2, 5) if scale.low <= m * 10.0**e <= scale.high]
    few = len(tens) < 2
    return tens + [Tick(scale(m * 10.0**e), f"{m * 10.0**e:g}" if few else "") for e, m in between]


def path_through(points: Iterable[tuple[float, float]]) -> str:
    """The path of a line through points."""
    return "".join(f"{'L' if number else 'M'}{x:g} {y:g}" for number, (x, y) in enumerate(points))


def log_range(values: Iterable[float], *, decades: float = 6, margin: float = 1.25) -> tuple[float, float]:
    """The positive range of `values`, slightly widened, limited to a number of powers of ten below its maximum."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if not positive:
        return 1e-6, 1.0
    high = max(positive)
    low = max(min(positive), high / 10**decades)
    return low / margin, high * margin
