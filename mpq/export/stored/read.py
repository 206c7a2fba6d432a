"""The reader of each target, and what it finds; for a target without one, nothing."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from mpq.export.stored.base import Held, Place

READERS = {
    "compressed-tensors": "compressed_tensors",
    "gguf": "gguf",
    "onnx": "onnx",
    "openvino": "openvino",
    "pt2": "pt2",
}
"""By target. The weights of an ExecuTorch program are packed by its kernels, so that none reads them."""


def held_in(target: str, path: Path, places: Iterable[Place]) -> Held | None:
    """What the export at `path` holds; None if there is no reader for its target.

    Raises:
        FormatError: if the export is damaged.
        ExportError: if a package that reads it is not installed.
    """
    reader = READERS.get(target)
    if reader is None:
        return None
    found: Held = import_module(f"mpq.export.stored.{reader}").read(path, list(places))
    return found
