"""The inputs that codes and statistics depend on, for keys in a store: the model, the data, and the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mpq.data.dataset import Data
from mpq.errors import OutputError
from mpq.models.memory.offload import Offload
from mpq.models.memory.store import MEMORY_BYTES, Folder, Scope, Store
from mpq.records.equalization import Chain

ARITHMETIC = 3
"""Raised whenever a quantizer or the collecting of statistics gives other values than before."""


def scope_for(store: Store, model_sha256: str, data: Data | None, equalization: Sequence[Chain] = ()) -> Scope:
    """The entries of one model, quantized with statistics of `data`; None without data. `equalization` is that of its channels."""
    facts: dict[str, Any] = {"arithmetic": ARITHMETIC, "torch": torch.__version__, "model": model_sha256}
    facts |= {"equalization": [chain.to_dict() for chain in equalization]} if equalization else {}
    return Scope(store, facts if data is None else {**facts, "data": data.sha256, "batches": [batch.size for batch in data.batches]})


def opened(cache: Path | str | None, offload: Offload | None = None) -> Store:
    """The store with persistent entries in the folder `cache`; None keeps them only for this process.

    With `offload`, entries do not stay in memory, and the unnamed file is in its folder.

    Raises:
        OutputError: if `cache` is not a folder.
    """
    memory, spill = (MEMORY_BYTES, None) if offload is None else (0, offload.folder)
    if cache is None:
        return Store(memory=memory, spill=spill)
    folder = Path(cache)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot use {folder} as the cache: it is not a folder; name another with --cache, or --cache off")
    return Store(Folder(folder), memory=memory, spill=spill)
