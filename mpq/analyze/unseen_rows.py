"""What the rows of lookup tables cost that calibration never looks up.

The error of a table counts the rows that calibration reaches, and other data reaches others. Good and Turing (Good 1953) estimate how
often: the share p of lookups that hit a row not seen before is n1 / N, with n1 the rows that were looked up exactly once among N lookups.
What such a row costs per lookup is what rows seen once cost, for these are the most like them. So the error is measured once more with
only the rows seen once quantized: E1 is that of p of all lookups. Other data has (1 - p) of the table's error and E1; unseen rows
add E1 - p * error, at least zero. The term stands beside the prediction, which stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mpq.analyze.methods.base import Context
from mpq.calibration.rows import row_counts
from mpq.models.running.reference import Reference
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer

_SAMPLES = 32


def unseen_rows(context: Context) -> dict[str, dict[str, Any]]:
    """Facts of each table that calibration reaches in part, by layer name: rows, reached, share of new lookups, and `adds` by scheme."""
    tables = [layer for layer in context.table.layers if layer.axes == (0,) and len(layer.shape) == 2]
    counts = row_counts(context.model.module, tables, context.prepared.first.batches)
    found = {}
    for layer in tables:
        rows = counts.get(layer.name)
        if rows is not None and bool((rows == 0).any()):
            found[layer.name] = _facts(rows) | {"adds": dict(_added(context, layer, rows))}
    return found


def _facts(counts: Tensor) -> dict[str, Any]:
    share = float((counts == 1).sum()) / max(1, int(counts.sum()))
    return {"rows": len(counts), "reached": int((counts > 0).sum()), "share": float(f"{share:.6g}")}


def _added(context: Context, layer: Layer, counts: Tensor) -> Iterator[tuple[str, float]]:
    """What unseen rows add, by scheme."""
    once = counts == 1
    if not bool(once.any()):
        return
    share = float(once.sum()) / int(counts.sum())
    reference = Reference(context.model.module, context.prepared.first.first(_SAMPLES), context.prepared.metric)
    weight = tensor_of(context.model.module, layer.parameters[0]).detach()
    for scheme in context.table.header.candidates[layer.name]:
        changed = torch.where(once.unsqueeze(1), context.variants.weight(layer.name, scheme), weight)
        error = float(reference.errors({layer.parameters[0]: changed}).mean())
        yield str(scheme), float(f"{max(0.0, error - share * context.table.mean(layer.name, scheme)):.6g}")


def unseen_notes(facts: dict[str, dict[str, Any]]) -> list[str]:
    """How much of each table calibration reaches, for people."""
    lines = []
    for name, found in facts.items():
        reach = (
            f"calibration reaches {found['reached'] / found['rows']:.1%} of the rows of {name} ({found['reached']:,} of {found['rows']:,})"
        )
        adds = ", ".join(f"{value:.3g} at {scheme}" for scheme, value in found["adds"].items() if value > 0)
        term = f"; about {found['share']:.1%} of new lookups hit others: unseen rows add {adds}" if adds else ""
        lines.append(reach + term)
    return lines
