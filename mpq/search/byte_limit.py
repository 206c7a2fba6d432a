"""The part of a budget that is left for the searched layers. No torch."""

from __future__ import annotations

from typing import NamedTuple

from mpq.budget import Budget
from mpq.records.artifact_layout import ALIGNMENT
from mpq.records.sensitivity import Sensitivity


class ByteLimit(NamedTuple):
    """A budget in bytes.

    Args:
        layers: bytes left for the layers.
        constant: other bytes that the budget counts.
        weights: number of weights for bits per weight.
    """

    layers: int
    constant: int
    weights: int


def byte_limit(table: Sensitivity, budget: Budget, *, reserved: int = 0) -> ByteLimit:
    """The part of `budget` that is left for the layers of a table.

    In scope "file" a layer's cost includes its share of the header. The header is padded to a multiple of 8 bytes,
    and the full padding is reserved, so a plan may be up to 7 bytes below the budget. So are `reserved` bytes, for
    activations and sketches.
    """
    layers, rest = table.layers, table.header.rest
    weights = sum(layer.weights for layer in layers)
    original = sum(layer.original_bytes for layer in layers)
    if budget.scope == "layers":
        return ByteLimit(budget.bytes(weights=weights, original_bytes=original), 0, weights)
    constant = 8 + rest.header_bytes + rest.data_bytes + ALIGNMENT - 1 + reserved
    total = weights + rest.weights
    return ByteLimit(budget.bytes(weights=total, original_bytes=original + rest.original_bytes) - constant, constant, total)
