"""What a store keeps of one layer's statistics, and how it is read back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mpq.models.memory.store import MOST_TEXT, as_bytes, text_of
from mpq.records.layer import Layer
from mpq.tensors.quantizers.base import Statistics


def entry_of(layer: Layer) -> str:
    """The name of a layer's entry."""
    return f"statistics of {layer.name} {layer.axes}"


def most_bytes(layer: Layer) -> int:
    """The most bytes of tensors that an entry can have."""
    return 4 * layer.matrix[1] ** 2 * layer.matrix[0] + MOST_TEXT


def to_parts(found: Statistics | None, reason: str) -> dict[str, Tensor]:
    """What is kept of a layer: its statistics, or the reason why it has none."""
    if found is None:
        return {"reason": as_bytes(reason)}
    return {"hessian": found.hessian, "count": torch.tensor([found.count])}


def from_parts(parts: Mapping[str, Tensor], layer: Layer) -> Statistics | str | None:
    """The inverse of `to_parts`; None where tensors from outside cannot be that."""
    if parts.keys() == {"reason"} and parts["reason"].dtype == torch.uint8:
        return text_of(parts["reason"])
    if parts.keys() != {"hessian", "count"}:
        return None
    (rows, columns), hessian, count = layer.matrix, parts["hessian"], parts["count"]
    blocks = hessian.shape[0] if hessian.dim() == 3 else 1
    fits = hessian.dtype == torch.float32 and tuple(hessian.shape[-2:]) == (columns, columns) and hessian.dim() in (2, 3)
    fits = fits and blocks > 0 and rows % blocks == 0 and count.dtype == torch.int64 and count.numel() == 1
    return Statistics(hessian, int(count)) if fits and bool(hessian.isfinite().all()) else None
