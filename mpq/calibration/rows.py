"""Counts how often the calibration data looks up each row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.data.masks import padding_masks
from mpq.models.layers.dispatch_watch import Watch
from mpq.models.layers.operator_roles import role
from mpq.models.memory.regions import Origin, region
from mpq.models.running.forward import forward
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer


def row_counts(module: nn.Module, layers: Sequence[Layer], batches: Sequence[Batch]) -> dict[str, Tensor]:
    """How often each row of each table is looked up, int64 [rows] by layer name; padding does not count.

    Layers that are not looked up along their first dimension are omitted.
    """
    watch = _RowWatch(module, layers)
    for batch in batches:
        watch.masks = padding_masks(batch)
        with watch.active():
            forward(module, batch)
    return {layers[number].name: counts for number, counts in watch.counts.items()}


class _RowWatch(Watch):  # type: ignore[no-untyped-call]
    def __init__(self, module: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(module, [tensor_of(module, layer.parameters[0]) for layer in layers])
        self.masks: list[Tensor] = []
        self.counts: dict[int, Tensor] = {}

    def _consume(self, call: Any, name: str, tensor: Tensor, origin: Origin) -> None:
        super()._consume(call, name, tensor, origin)
        part = role(call.operation, name, dims=tensor.dim(), arguments=call.arguments)
        index = _looked_up(call.arguments) if part.operator == "embedding" else None
        if index is None or tensor.dim() != 2 or region(tensor) != origin.root:
            return
        mask = next((mask for mask in self.masks if mask.numel() == index.numel()), None)
        kept = index.flatten() if mask is None else index.flatten()[mask.flatten()]
        found = torch.bincount(kept.to(torch.int64).remainder(len(tensor)).cpu(), minlength=len(tensor))
        self.counts[origin.weight] = self.counts.get(origin.weight, torch.zeros_like(found)) + found


def _looked_up(arguments: Any) -> Tensor | None:
    """The rows that a lookup along dim 0 picks; None where it picks otherwise."""
    index = arguments.get("indices", arguments.get("index"))
    index = index[0] if isinstance(index, (list, tuple)) and len(index) == 1 else index
    whole = isinstance(index, Tensor) and not index.is_floating_point() and index.dtype != torch.bool
    return index if whole and int(arguments.get("dim", 0)) == 0 else None
