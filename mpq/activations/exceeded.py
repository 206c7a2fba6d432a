"""How many values a model's fixed ranges clip on some data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn

from mpq.activations.rounding import Change, changes_in
from mpq.formats.activations import LEVELS
from mpq.records.activations import Groups

_TOLD = 0.001  # share of a tensor's values


@dataclass
class Counts:
    """Values, and those outside of the range, by reader."""

    values: dict[str, int] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)

    def share(self, reader: str) -> float:
        """The share of a reader's values that are clipped."""
        return self.outside.get(reader, 0) / max(1, self.values.get(reader, 0))

    def lines(self, groups: Groups) -> list[str]:
        """What to tell of ranges that the data exceeds, those that lose most first; at most three by name."""
        names = {reader: name for name, group in groups.items() for reader in group.readers}
        worst = sorted((reader for reader in self.values if self.share(reader) > _TOLD), key=self.share, reverse=True)
        if not worst:
            return []
        told = ", ".join(f"{names.get(reader, reader)} ({reader}) {self.share(reader):.2%}" for reader in worst[:3])
        more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
        return [f"this data exceeds the ranges of activations; share of values clipped: {told}{more}; calibrate on data like it"]


@contextmanager
def counted(module: nn.Module, groups: Groups) -> Iterator[Counts]:
    """Count clipped values in the calls of a model whose tensors `simulate` rounds, inside the `with`."""
    counts, changes = Counts(), changes_in(module)
    before = dict(changes)
    for group in groups.values():
        for tensor in group.tensors:
            if tensor.scale is None or tensor.zero_point is None:
                continue
            half, low, high = tensor.scale / 2, -tensor.scale * tensor.zero_point, tensor.scale * (LEVELS - tensor.zero_point)
            for reader in tensor.readers:
                changes[reader] = partial(_count, counts, reader, before[reader], low - half, high + half)
    try:
        yield counts
    finally:
        changes.update(before)


def _count(counts: Counts, reader: str, change: Change, low: float, high: float, values: Tensor) -> Tensor:
    counts.values[reader] = counts.values.get(reader, 0) + values.numel()
    counts.outside[reader] = counts.outside.get(reader, 0) + int(((values < low) | (values > high)).sum())
    return change(values)
