"""The reader of each target; some targets have none."""

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
    """The contents of the export at `path`; None if its target has no reader.

    Raises:
        FormatError: if the export is damaged.
        ExportError: if a required package is not installed.
    """
    reader = READERS.get(target)
    if reader is None:
        return None
    found: Held = import_module(f"mpq.export.stored.{reader}").read(path, list(places))
    return found
