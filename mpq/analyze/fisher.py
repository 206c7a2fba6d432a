"""Fisher: all layers and schemes from a few backward passes per sample, by the second-order expansion of the metric.

See `models/projections.py` for the mathematics. Each draw gives one signed figure v per (layer, scheme); the error of a pair is the mean of
v^2, that of a whole plan the mean of (sum of v)^2. The cost is one forward and `DRAWS` backward passes per sample, however many layers and
schemes there are, plus an inner product for each pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mpq.analyze.method import Context, Method, finite
from mpq.models.batches import Batch, Data
from mpq.models.projections import Receive, project
from mpq.models.swap import tensor_of
from mpq.records.layer import Layer
from mpq.schemes import Scheme

DRAWS = 2
CACHE_BYTES = 2 << 30
_FLUSH = 8  # samples between two writes to the journal


class Fisher(Method):
    """Second-order sensitivities; the pairs that are missing are found together."""

    name = "fisher"

    def run(self, context: Context) -> None:
        """Fill what the table misses."""
        samples = _samples(context.prepared.calibration)
        wanted = {layer.name: list(context.table.header.candidates[layer.name]) for layer in context.table.layers}
        begin = min((context.table.count(name, scheme) for name, schemes in wanted.items() for scheme in schemes), default=0)
        units = _units(samples, begin)
        layers = [
            layer for layer in context.table.layers if any(context.table.count(layer.name, s) < _total(samples) for s in wanted[layer.name])
        ]
        changes = _Changes(context, {layer.name: wanted[layer.name] for layer in layers})
        pending: list[dict[tuple[str, Scheme], Tensor]] = []
        first = begin
        for number, (position, sample) in enumerate(units, start=1):
            pending.append(self._products(context, layers, sample, position, changes))
            if len(pending) == _FLUSH or number == len(units):
                context.record(_records(pending, wanted, first, context))
                first, pending = position + sample.size, []
            context.on_progress(number, len(units), "samples")
        context.cost["forward_passes"] = len(units)
        context.cost["backward_passes"] = len(units) * DRAWS

    def _products(
        self, context: Context, layers: Sequence[Layer], sample: Batch, position: int, changes: _Changes
    ) -> dict[tuple[str, Scheme], Tensor]:
        found: dict[tuple[str, Scheme], list[float]] = {}

        def receive(_: int) -> Receive:
            def take(layer: Layer, gradient: Tensor) -> None:
                products = changes.of(layer) @ gradient.reshape(-1)
                for scheme, product in zip(changes.schemes[layer.name], products.tolist(), strict=True):
                    found.setdefault((layer.name, scheme), []).append(product)

            return take

        seed = int(context.prepared.header.data["seed"]) * 1_000_003 + position
        project(context.model.module, layers, sample, context.prepared.metric, draws=DRAWS, seed=seed, receive=receive)
        return {key: torch.tensor(products, dtype=torch.float64) for key, products in found.items()}


class _Changes:
    """The changes of a layer's weights under its schemes, float32 [schemes, weights]; kept in bfloat16 while memory allows."""

    def __init__(self, context: Context, schemes: dict[str, list[Scheme]]) -> None:
        self.schemes = schemes
        self._context = context
        self._kept: dict[str, Tensor] = {}
        self._held = 0

    def of(self, layer: Layer) -> Tensor:
        """All changes of one layer."""
        if layer.name in self._kept:
            return self._kept[layer.name].float()
        weight = tensor_of(self._context.model.module, layer.parameters[0]).detach().float()
        changes = torch.stack(
            [(self._context.variants.weight(layer.name, s).float() - weight).reshape(-1) for s in self.schemes[layer.name]]
        )
        if self._held + 2 * changes.numel() <= CACHE_BYTES:
            self._kept[layer.name] = changes.bfloat16()
            self._held += 2 * changes.numel()
        return changes.bfloat16().float()


def _samples(data: Data) -> list[Batch]:
    """One sample each, or whole batches where the model takes only one size."""
    if data.fixed_batch:
        return list(data.batches)
    return [batch.select([index]) for batch in data.batches for index in range(batch.size)]


def _total(samples: Sequence[Batch]) -> int:
    return sum(sample.size for sample in samples)


def _units(samples: Sequence[Batch], begin: int) -> list[tuple[int, Batch]]:
    """Samples from position `begin` on, each with its position."""
    found, position = [], 0
    for sample in samples:
        if position >= begin:
            found.append((position, sample))
        position += sample.size
    return found


def _records(
    pending: Sequence[dict[tuple[str, Scheme], Tensor]], wanted: dict[str, list[Scheme]], first: int, context: Context
) -> list[dict[str, Any]]:
    """One record per pair; a sample that no gradient reached counts as no error, a batch that cannot be cut for each of its samples."""
    size = context.prepared.calibration.fixed_batch or 1
    zero = torch.zeros(DRAWS, dtype=torch.float64)
    records = []
    for name, schemes in wanted.items():
        for scheme in schemes:
            skip = context.table.count(name, scheme) - first  # figures that an earlier run has already
            products = torch.stack([found.get((name, scheme), zero) for found in pending])
            errors = products.square().mean(1).repeat_interleave(size)
            if skip < len(errors):
                kept = products[max(0, skip) // size :]
                record = {"layer": name, "scheme": str(scheme), "first": max(first, first + skip), "errors": finite(errors[max(0, skip) :])}
                records.append(record | {"products": finite(kept.reshape(-1))})
    return records
