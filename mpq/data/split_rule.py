"""How samples are split: at random, or by position if neighbors belong together.

Windows of running text continue each other, so a random split puts windows of one story on both sides, and held-out errors are too low.
They are split by position: the last windows are held out, and a gap of one window (or of all overlapping windows) is used on neither side.
Other samples are split by a random permutation, because files are often sorted by class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mpq.data.batch import Batch, is_integer
from mpq.errors import UsageError

POSITION, RANDOM = "position", "random"
SPLITS = (POSITION, RANDOM)
_PAIRS = 8  # pairs of neighbors examined for an overlap
_LEAST_OVERLAP = 2  # columns; a single common one may be an end-of-text token in every window


@dataclass(frozen=True)
class SplitRule:
    """One way to split.

    Args:
        by: "position" or "random".
        gap: for a split by position: samples between the two sides that neither uses.
        asked: whether the user chose it.
    """

    by: str
    gap: int = 0
    asked: bool = False

    def facts(self) -> dict[str, Any]:
        """The facts recorded in the `data` of an analysis."""
        return {"split": self.by} | ({"gap": self.gap} if self.by == POSITION else {})


def rule_for(batches: Sequence[Batch], *, asked: str | None = None, text: bool = False) -> SplitRule:
    """The rule for some samples.

    Args:
        batches: all samples.
        asked: "position" or "random"; None uses position for windows of running text, else random.
        text: whether they are windows cut from text.

    Raises:
        UsageError: if `asked` is neither.
    """
    if asked not in (None, *SPLITS):
        raise UsageError(f"--split {asked} is unknown: use {' or '.join(SPLITS)}")
    by = asked or (POSITION if text or are_token_windows(batches) else RANDOM)
    return SplitRule(by, _gap(batches) if by == POSITION else 0, asked is not None)


def rule_in(facts: Mapping[str, Any], *, text: bool) -> SplitRule:
    """The rule that an analysis recorded. Older analyses recorded none and used: text by position without a gap, else random."""
    if facts.get("split") is None:
        return SplitRule(POSITION if text else RANDOM)
    return SplitRule(str(facts["split"]), int(facts.get("gap", 0)))


def are_token_windows(batches: Sequence[Batch]) -> bool:
    """Whether samples are windows of token ids [N, T] without a label for each window.

    Padding makes no difference: the same tokens are always split in the same way.
    """
    return all(_is_token_window(batch) for batch in batches)


def _is_token_window(batch: Batch) -> bool:
    ids = [tensor for tensor in batch.tensors if tensor.ndim == 2 and tensor.shape[1] > 1 and is_integer(tensor)]
    masks = [value for name, value in batch.kwargs.items() if isinstance(value, Tensor) and ("mask" in name or value.dtype == torch.bool)]
    others = [tensor for tensor in batch.tensors if not any(tensor is each for each in (*ids, *masks))]
    return bool(ids) and not others and (batch.labels is None or batch.labels.shape == ids[0].shape)


def _gap(batches: Sequence[Batch]) -> int:
    """Samples to leave out between the sides: one, or all that share values if neighbors overlap."""
    first = max(batches, key=lambda batch: batch.size)
    series = next((tensor for tensor in first.tensors if tensor.ndim > 1 and len(tensor) == first.size), None)
    if series is None or len(series) < 2:
        return 1
    for dim in dict.fromkeys((1, series.ndim - 1)):
        length = series.shape[dim]
        step = next((each for each in range(1, length - _LEAST_OVERLAP + 1) if _overlap(series, dim, each)), length)
        if step < length:
            return math.ceil(length / step)
    return 1


def _overlap(series: Tensor, dim: int, step: int) -> bool:
    """Whether each sample repeats its neighbor's values from `step` on; constant values show nothing."""
    length = series.shape[dim] - step
    pairs = [(left.narrow(dim - 1, step, length), right.narrow(dim - 1, 0, length)) for left, right in pairwise(series[: _PAIRS + 1])]
    return all(torch.equal(left, right) for left, right in pairs) and any(bool((left != left.flatten()[0]).any()) for left, _ in pairs)
