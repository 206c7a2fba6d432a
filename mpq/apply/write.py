"""Write an artifact: one layer in memory at a time, every tensor at its predicted place, and the file appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from mpq.errors import ApplyError
from mpq.files import atomic_write
from mpq.records.artifact import ArtifactHeader
from mpq.records.layout import TensorEntry, header, in_file_order, layer_entries


class ArtifactWriter:
    """Tensors into their places in a file that is open for writing."""

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
            ApplyError: if its shape is not the predicted one.
        """
        offset, item = self._places[name]
        if tuple(tensor.shape) != item.stored.shape or tensor.numel() * tensor.element_size() != item.stored.bytes:
            raise ApplyError(
                f"'{name}' should be stored as {item.stored.dtype} {list(item.stored.shape)}, but is {tensor.dtype} {list(tensor.shape)}"
            )
        self._file.seek(offset)
        self._file.write(_bytes(tensor))
        self._missing.discard(name)

    def check_complete(self) -> None:
        """Refuse a file with a hole.

        Raises:
            ApplyError: naming a tensor that was never written.
        """
        if self._missing:
            raise ApplyError(f"tensor '{min(self._missing)}' was not written: this is a bug in mpq, please report it")


def write_artifact(
    path: Path,
    facts: ArtifactHeader,
    rest: Mapping[str, Tensor],
    rest_entries: Iterable[TensorEntry],
    parts_of: Callable[[str], Mapping[str, Tensor]],
    *,
    finished: Callable[[], tuple[ArtifactHeader, Mapping[str, Tensor]]] | None = None,
) -> None:
    """Write an artifact atomically.

    Args:
        path: where.
        facts: what its header says.
        rest: tensors stored as they are, by name.
        rest_entries: their entries.
        parts_of: the packed parts of a layer, by its name; called once per layer, in order.
        finished: called when all layers are written: what the header says in the end, no longer than `facts`, and other values for
            some of the tensors, by their names in the file.
    """
    entries = list(rest_entries)
    for layer in facts.layers:
        entries += layer_entries(layer.name, layer.matrix, facts.schemes[layer.name])
    first = header(entries, facts.to_metadata())
    with atomic_write(path) as file:
        writer = ArtifactWriter(file, entries, first)
        for name, tensor in rest.items():
            writer.put(name, tensor)
        for layer in facts.layers:
            for part, tensor in parts_of(layer.name).items():
                writer.put(f"{layer.name}.{part}", tensor)
        if finished is not None:
            final, changed = finished()
            for name, tensor in changed.items():
                writer.put(name, tensor)
            file.seek(0)
            file.write(header(entries, final.to_metadata()))  # as long as the first one
        writer.check_complete()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
