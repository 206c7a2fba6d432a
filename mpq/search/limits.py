"""Limits: what a budget leaves for the searched layers. No torch."""

from __future__ import annotations

from mpq.budget import Budget
from mpq.records.layout import ALIGNMENT
from mpq.records.sensitivity import Sensitivity


def layer_limit(table: Sensitivity, budget: Budget) -> tuple[int, int, int]:
    """(bytes left for the layers' own cost, constant bytes that the budget counts beside them, weights that bits count over).

    In scope "file" a layer's cost includes its share of the header. The header is padded to a multiple of 8 bytes,
    and that padding is set aside in full, so a plan may stay up to 7 bytes below the budget.
    """
    layers, rest = table.layers, table.header.rest
    weights = sum(layer.weights for layer in layers)
    original = sum(layer.original_bytes for layer in layers)
    if budget.scope == "layers":
        return budget.bytes(weights=weights, original_bytes=original), 0, weights
    constant = 8 + rest.header_bytes + rest.data_bytes + ALIGNMENT - 1
    total = weights + rest.weights
    return budget.bytes(weights=total, original_bytes=original + rest.original_bytes) - constant, constant, total
