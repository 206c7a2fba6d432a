"""Damages to exports, as they happen in the field: each changes one layer or tensor of a written file, in place."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.damages.base import Damage
from benchmarks.damages.programs import Onnx, OpenVino, Pt2
from benchmarks.damages.weights import Folder, Gguf
from mpq.records.fingerprint import read_fingerprint


def damages(export: Path) -> Iterator[Damage]:
    """Every damage that the export can have; each is to be done to a fresh copy of it."""
    fingerprint = read_fingerprint(export)
    kind = {"onnx": Onnx, "openvino": OpenVino, "pt2": Pt2, "compressed-tensors": Folder, "gguf": Gguf}[fingerprint.target]
    yield from kind(export, fingerprint).all()
