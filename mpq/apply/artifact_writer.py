"""Write an artifact atomically: one layer in memory at a time, every tensor at its predicted offset."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from torch import Tensor

from mpq.data.hashing import tensor_bytes
from mpq.errors import ApplyError
from mpq.files import OutputError, atomic_write
from mpq.formats.scheme import Scheme
from mpq.models.layers.unquantized_tensors import tensor_entry
from mpq.records.artifact import ArtifactHeader
from mpq.records.artifact_layout import TensorEntry, in_file_order, layer_entries
from mpq.records.layer import Layer
from mpq.runtime.digests import rest_digest, weight_digest


class ArtifactWriter:
    """Writes tensors to their offsets in an open file."""

    def __init__(self, file: IO[bytes], entries: Iterable[TensorEntry], first: bytes) -> None:
        self._file, self._places = file, dict[str, tuple[int, TensorEntry]]()
        offset = len(first)
        for item in in_file_order(entries):
            self._places[item.name] = (offset, item)
            offset += item.stored.bytes
        self._missing = set(self._places)
        file.write(first)
        file.truncate(offset)

    def put(self, name: str, tensor: Tensor) -> None:
        """Write one tensor.

        Raises:
            ApplyError: if its shape differs from the prediction.
        """
        offset, item = self._places[name]
        if tuple(tensor.shape) != item.stored.shape or tensor.numel() * tensor.element_size() != item.stored.bytes:
            raise ApplyError(
                f"'{name}' should be stored as {item.stored.dtype} {list(item.stored.shape)}, but is {tensor.dtype} {list(tensor.shape)}"
            )
        self._file.seek(offset)
        self._file.write(tensor_bytes(tensor))
        self._missing.discard(name)

    def check_complete(self) -> None:
        """Refuse a file with missing tensors.

        Raises:
            ApplyError: naming a tensor that was never written.
        """
        if self._missing:
            raise ApplyError(f"tensor '{min(self._missing)}' was not written: this is a bug in mpq, please report it")


@dataclass(frozen=True)
class Contents:
    """Everything that an artifact will contain, decided before anything is written.

    Args:
        header: the header, including the recovery steps.
        tensors: unquantized tensors, by name.
        parts_of: the packed parts of a layer, by its name; called once per layer, in order, while the file is written, so that only one
            layer's packed parts are in memory at a time.
        fingerprint: put digests of each layer's dequantized weights and of the other tensors into spare space of the header; the size of
            the file does not change.
    """

    header: ArtifactHeader
    tensors: Mapping[str, Tensor]
    parts_of: Callable[[str], Mapping[str, Tensor]]
    fingerprint: bool = False

    @cached_property
    def entries(self) -> list[TensorEntry]:
        """The entries of all tensors in the file."""
        known = [tensor_entry(name, tensor) for name, tensor in self.tensors.items()]
        return known + [part for layer in self.header.layers for part in layer_entries(layer.name, layer.matrix, self._scheme(layer))]

    @cached_property
    def first(self) -> bytes:
        """The first bytes of the file."""
        return self.header.first_bytes(self.entries)

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return len(self.first) + sum(entry.stored.bytes for entry in self.entries)

    def _scheme(self, layer: Layer) -> Scheme:
        return self.header.schemes[layer.name]


def check_folder(path: Path) -> None:
    """Before the long work, refuse a file whose folder is missing or read-only.

    Raises:
        OutputError: naming the file and the reason.
    """
    if not os.access(path.parent, os.W_OK):
        reason = os.strerror(errno.EACCES if path.parent.exists() else errno.ENOENT)
        raise OutputError(f"cannot write {path}: {reason}; choose another place with --output")


def write_artifact(path: Path, contents: Contents) -> None:
    """Write an artifact atomically.

    Raises:
        ApplyError: if a part is missing or does not have its predicted shape; then no file is left.
    """
    first = contents.first
    with atomic_write(path) as file:
        writer = ArtifactWriter(file, contents.entries, first)
        for name, tensor in contents.tensors.items():
            writer.put(name, tensor)
        digests = []
        for layer in contents.header.layers:
            parts = contents.parts_of(layer.name)
            for part, tensor in parts.items():
                writer.put(f"{layer.name}.{part}", tensor)
            if contents.fingerprint:
                digests.append(weight_digest(parts, contents.header.schemes[layer.name], layer))
        writer.check_complete()
        if contents.fingerprint:  # at the beginning, where the space was reserved
            file.seek(0)
            file.write(
                contents.header.with_digests([*digests, rest_digest(contents.tensors)], contents.entries).first_bytes(contents.entries)
            )
