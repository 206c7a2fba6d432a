"""What a plan records about its origin: the data of its analysis, and the analysis itself. No torch."""

from __future__ import annotations

from typing import Any

from mpq.records.sensitivity import Sensitivity

_READING = (
    "source",
    "sha256",
    "seq_len",
    "num_samples",
    "spread",
    "batch_size",
    "mask",
    "seed_each_forward",
    "batch_axis",
    "text_field",
    "held_out",
    "seed",
    "split",
    "gap",
    "parts",
    "caution",
    "shift",
)  # needed to read and split the data again


def data_of(table: Sensitivity) -> dict[str, Any]:
    """What a plan records about the data: how to read and split it again."""
    return {name: table.header.data[name] for name in _READING if table.header.data.get(name) is not None}


def analysis_of(table: Sensitivity) -> dict[str, Any]:
    """How a plan names its analysis."""
    return {"path": None if table.path is None else table.path.name, "sha256": table.sha256}
