"""The error from rows of embedding tables that the calibration data never looks up.

The error of a table counts only the rows that the calibration data looks up; other data looks up other rows. Good and Turing (Good 1953)
estimate how often from the rows that were seen once. Words come in bursts: a name that occurs at all occurs many times in its story. So
"once" means in one sample: the share p of lookups of unseen rows is estimated as the share of lookups of rows that no other sample has, as
if each sample in turn were new. These rows also give the error per lookup: the error is measured again with only them quantized, which
gives E1 for a share p of all lookups. New data has (1 - p) of the table's error plus E1, so unseen rows add E1 - p * error, at least zero.
The term is reported next to the prediction, which does not change.

On stories9m, 149 windows of 256 tokens give p = 3.3% (1.7% by single lookups); 4.8% of the lookups of the next 49 windows hit new
rows, and 7.5% of those of another file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mpq.analyze.methods.base import Context
from mpq.calibration.rows import RowCounts, row_counts
from mpq.models.running.ranks import float_bytes
from mpq.models.running.reference import Reference
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer

_SAMPLES = 32


def unseen_rows(context: Context) -> dict[str, dict[str, Any]]:
    """Facts about tables that calibration reaches only in part, by layer name: rows, reached, share of new lookups, `adds` by scheme."""
    tables = [layer for layer in context.table.layers if layer.axes == (0,) and len(layer.shape) == 2]
    counts = row_counts(context.model.module, tables, context.prepared.first.batches)
    found = {}
    for layer in tables:
        rows = counts.get(layer.name)
        if rows is not None and bool((rows.lookups == 0).any()):
            found[layer.name] = _facts(rows) | {"adds": dict(_added(context, layer, rows))}
    return found


def _facts(counts: RowCounts) -> dict[str, Any]:
    reached = int((counts.lookups > 0).sum())
    return {"rows": len(counts.lookups), "reached": reached, "share": float(f"{_share(counts, _once(counts)):.6g}")}


def _once(counts: RowCounts) -> Tensor:
    """The rows that only one sample has, bool [rows]; with a single sample, the rows that were looked up once."""
    return counts.samples == 1 if bool((counts.samples > 1).any()) else counts.lookups == 1


def _share(counts: RowCounts, rows: Tensor) -> float:
    """The share of all lookups that hit these rows."""
    return float(counts.lookups[rows].sum()) / max(1, int(counts.lookups.sum()))


def _added(context: Context, layer: Layer, counts: RowCounts) -> Iterator[tuple[str, float]]:
    """The error that unseen rows add, by scheme."""
    once = _once(counts)
    if not bool(once.any()):
        return
    share = _share(counts, once)
    reference = Reference(context.model.module, context.prepared.first.spread(_SAMPLES), context.prepared.metric)
    weight = tensor_of(context.model.module, layer.parameters[0]).detach()
    schemes = context.table.header.candidates[layer.name]

    def error_of(unit: int) -> float:
        changed = torch.where(once.unsqueeze(1), context.variants.weight(layer.name, schemes[unit]), weight)
        return float(reference.errors({layer.parameters[0]: changed}).mean())

    for scheme, error in zip(schemes, context.ranks.each(len(schemes), error_of, pack=float_bytes, unpack=float), strict=True):
        yield str(scheme), float(f"{max(0.0, error - share * context.table.mean(layer.name, scheme)):.6g}")
