"""Counts how often the calibration data looks up each row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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


class RowCounts(NamedTuple):
    """How each row of a table is used.

    Args:
        lookups: how often it is looked up, int64 [rows].
        samples: in how many samples it is looked up, int64 [rows]; a batch whose samples cannot be told apart counts as one.
    """

    lookups: Tensor
    samples: Tensor


def row_counts(module: nn.Module, layers: Sequence[Layer], batches: Sequence[Batch]) -> dict[str, RowCounts]:
    """How often each row of each table is looked up, by layer name; padding does not count.

    Layers that are not looked up along their first dimension are omitted.
    """
    watch = _RowWatch(module, layers)
    for batch in batches:
        watch.masks, watch.size = padding_masks(batch), batch.size
        with watch.active():
            forward(module, batch)
        watch.close()
    return {layers[number].name: counts for number, counts in watch.counts.items()}


class _RowWatch(Watch):  # type: ignore[no-untyped-call]
    def __init__(self, module: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(module, [tensor_of(module, layer.parameters[0]) for layer in layers])
        self.masks: list[Tensor] = []
        self.size = 1
        self.counts: dict[int, RowCounts] = {}
        self._seen: dict[int, Tensor] = {}  # bool [samples of the batch, rows]

    def close(self) -> None:
        """Count the samples of the batch that has been run."""
        for number, seen in self._seen.items():
            lookups, samples = self.counts[number]
            self.counts[number] = RowCounts(lookups, samples + seen.sum(0))
        self._seen = {}

    def _consume(self, call: Any, name: str, tensor: Tensor, origin: Origin) -> None:
        super()._consume(call, name, tensor, origin)
        part = role(call.operation, name, dims=tensor.dim(), arguments=call.arguments)
        index = _looked_up(call.arguments) if part.operator == "embedding" else None
        if index is None or tensor.dim() != 2 or region(tensor) != origin.root:
            return
        mask = next((mask for mask in self.masks if mask.numel() == index.numel()), None)
        kept = torch.ones(index.numel(), dtype=torch.bool) if mask is None else mask.flatten().cpu()
        rows = index.flatten().to(torch.int64).remainder(len(tensor)).cpu()
        owners = (
            torch.arange(len(rows)) // (len(rows) // self.size) if self._by_sample(index) else torch.zeros(len(rows), dtype=torch.int64)
        )
        found = torch.bincount(rows[kept], minlength=len(tensor))
        lookups, samples = self.counts.get(origin.weight, RowCounts(torch.zeros_like(found), torch.zeros_like(found)))
        self.counts[origin.weight] = RowCounts(lookups + found, samples)
        seen = self._seen.setdefault(origin.weight, torch.zeros(self.size, len(tensor), dtype=torch.bool))
        seen[owners[kept], rows[kept]] = True

    def _by_sample(self, index: Tensor) -> bool:
        """Whether the samples of the batch follow each other in what is looked up."""
        return index.numel() > 0 and index.dim() > 0 and index.shape[0] % self.size == 0


def _looked_up(arguments: Any) -> Tensor | None:
    """The rows that a lookup along dim 0 picks; None where it picks otherwise."""
    index = arguments.get("indices", arguments.get("index"))
    index = index[0] if isinstance(index, (list, tuple)) and len(index) == 1 else index
    whole = isinstance(index, Tensor) and not index.is_floating_point() and index.dtype != torch.bool
    return index if whole and int(arguments.get("dim", 0)) == 0 else None
