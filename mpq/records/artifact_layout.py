"""The layout of an artifact: every byte of the file, computed from names, shapes and schemes alone. No torch.

An artifact is a safetensors file. Every offset in its header is counted with a fixed width, so that the entry of a tensor takes
the same space at any offset: the size of the file is then a constant plus one term per (layer, scheme), and
a budget on the whole file can be solved exactly. Offsets are written without padding; the space they leave holds what is
known only when the file is written, such as the recovery steps, and spaces fill the remainder, as safetensors allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mpq.errors import ApplyError
from mpq.formats.scheme import Scheme
from mpq.formats.stored import DTYPE_BYTES, Stored

OFFSET_WIDTH = 14  # decimal digits: up to 100 TB
ALIGNMENT = 8


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of the file: its name, safetensors dtype and shape."""

    name: str
    stored: Stored

    @property
    def header_bytes(self) -> int:
        """Bytes of this tensor's entry in the header, its leading comma included."""
        return len(_entry(self, *(" " * OFFSET_WIDTH,) * 2).encode())


def entry(name: str, dtype: str, shape: Sequence[int]) -> TensorEntry:
    """The entry of a tensor stored under its own name."""
    return TensorEntry(name, Stored("", dtype, tuple(shape)))


def layer_entries(name: str, matrix: tuple[int, int], scheme: Scheme) -> list[TensorEntry]:
    """The entries of one layer under one scheme."""
    return [TensorEntry(f"{name}.{stored.part}", stored) for stored in scheme.stored(matrix)]


def layer_header_bytes(name: str, matrix: tuple[int, int], scheme: Scheme) -> int:
    """What this layer adds to the header: its entries, and the scheme's name in the metadata."""
    return sum(e.header_bytes for e in layer_entries(name, matrix, scheme)) + len(str(scheme))


def in_file_order(entries: Iterable[TensorEntry]) -> list[TensorEntry]:
    """Widest dtype first, then by name: every tensor is aligned to its own element."""
    return sorted(entries, key=lambda e: (-DTYPE_BYTES[e.stored.dtype], e.name))


def header(entries: Iterable[TensorEntry], metadata: Mapping[str, object], *, length: int | None = None) -> bytes:
    """The first bytes of the file: the header's length and the padded JSON header.

    Args:
        entries: of all tensors.
        metadata: the value under "mpq".
        length: of the JSON header before it is padded; None for what `header_length` predicts.

    Raises:
        ApplyError: if `metadata` does not fit in `length`.
    """
    known = list(entries)
    raw, size = _written(known, metadata), padded_length(header_length(known, metadata) if length is None else length)
    if len(raw) > size:
        raise ApplyError(
            f"the artifact's header has {size} bytes, but its contents need {len(raw)}: apply with --no-recovery, which needs less space"
        )
    return size.to_bytes(8, "little") + raw.ljust(size)


def written_length(entries: Iterable[TensorEntry], metadata: Mapping[str, object]) -> int:
    """Bytes of the JSON header as it is written, without padding: at most `header_length`, since offsets are shorter than their width."""
    return len(_written(list(entries), metadata))


def _written(known: list[TensorEntry], metadata: Mapping[str, object]) -> bytes:
    text, offset = _metadata(metadata), 0
    for item in in_file_order(known):
        text += _entry(item, f"{offset}", f"{offset + item.stored.bytes}")
        offset += item.stored.bytes
    return (text + "}").encode()


def header_length(entries: Iterable[TensorEntry], metadata: Mapping[str, object]) -> int:
    """Bytes of the JSON header before it is padded."""
    return len(_metadata(metadata).encode()) + sum(e.header_bytes for e in entries) + 1


def padded_length(length: int) -> int:
    """`length` rounded up to the alignment of the data that follows."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def file_bytes(*, header_bytes: int, data_bytes: int) -> int:
    """Size of the file, from the unpadded header and the tensors' bytes."""
    return 8 + padded_length(header_bytes) + data_bytes


def _metadata(metadata: Mapping[str, object]) -> str:
    text = json.dumps(metadata, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return '{"__metadata__":{"mpq":' + json.dumps(text, ensure_ascii=False) + "}"


def _entry(item: TensorEntry, start: str, end: str) -> str:
    name, shape = json.dumps(item.name, ensure_ascii=False), json.dumps(list(item.stored.shape), separators=(",", ":"))
    return f',{name}:{{"dtype":"{item.stored.dtype}","shape":{shape},"data_offsets":[{start},{end}]}}'
