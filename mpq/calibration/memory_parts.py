"""Layers whose rows are wide: which of them have second moments at all, and parts whose moments fit into memory together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mpq.records.layer import Layer
from mpq.shown import listed
from mpq.tensors.quantizers.base import Quantizer

MOST_BYTES = 4 << 30
"""Of the moments of one layer; copies of them take about three times as much."""


def too_wide(layer: Layer) -> str:
    """Why the moments of a layer are not collected; empty if they are."""
    size = moment_bytes(layer)
    if size <= MOST_BYTES:
        return ""
    return f"rows of {layer.matrix[1]:,} weights would take {size / 1e9:.1f} GB of statistics, and {MOST_BYTES / 1e9:.1f} GB are allowed"


def wide_lines(quantizer: Quantizer, layers: Iterable[Layer]) -> list[str]:
    """One line for each way in which `quantizer` treats some layers with statistics unlike others, because of their size."""
    names: dict[str, list[str]] = {}
    for layer in (layer for layer in layers if not too_wide(layer)):
        names.setdefault(quantizer.remark(layer.matrix), []).append(layer.name)
    return [f"{remark}: {listed(of, 5)}" for remark, of in names.items() if remark]


def memory_parts(layers: Iterable[Layer], limit_bytes: int) -> Iterator[list[Layer]]:
    """Consecutive layers whose moments together fit `limit_bytes`; at least one layer in each part."""
    part: list[Layer] = []
    held = 0
    for layer in layers:
        size = moment_bytes(layer)
        if part and held + size > limit_bytes:
            yield part
            part, held = [], 0
        part.append(layer)
        held += size
    if part:
        yield part


def moment_bytes(layer: Layer) -> int:
    """Bytes of the moments of one layer while they are collected."""
    return 8 * experts(layer) * layer.matrix[1] ** 2


def experts(layer: Layer) -> int:
    """The number of matrices in a layer that may each have separate inputs."""
    return layer.shape[0] if layer.operator == "matmul" and len(layer.shape) == 3 else 1
