"""Tensor data files (torch, NumPy and safetensors), recognized by content and read without running any code from the file."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from mpq.data.numpy_files import check_unpacked, read_array
from mpq.data.tensors_only import HoldsCodeError, load_tensors, reason_of
from mpq.data.text_files import UTF16_MARKS
from mpq.errors import DataError
from mpq.files import first_bytes, open_file
from mpq.limits import SAFETENSORS_HEADER_BYTES
from mpq.shown import shown_bare

READABLE = "tensors (.pt, .npz, .npy, .safetensors), text, JSONL, CSV or Parquet, or a folder of images"
_UNNAMED = re.compile(r"arr_\d+")


def read_arrays(path: Path, source: str) -> Any:
    """The contents of the file: a tensor, a tuple, a dict, or a list of these; None if it is not a file of tensors.

    Raises:
        DataError: if the file is missing, empty, damaged, or has anything but tensors.
    """
    start = first_bytes(path, error=DataError, remedy=f"give a file of {READABLE}, or package.module:callable", name=source)
    reader = _reader(start, path, source)
    if reader is None:
        return None
    try:
        return reader(path, source)
    except DataError:
        raise
    except Exception as error:  # any failure in the reader is caused by the file
        raise DataError(f"{source} cannot be read ({reason_of(error)}): save the data again") from error


def _reader(start: bytes, path: Path, source: str) -> Callable[[Path, str], Any] | None:
    if start[:2] == b"PK":
        return _zip_reader(path, source)
    if start[:6] == b"\x93NUMPY":
        return _read_npy
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _read_torch
    if start[8:9] == b"{" and b"\x00" in start[:8] and not _is_utf16(start):  # the length of a header; text has no zero bytes
        return _read_safetensors
    return None


def _is_utf16(start: bytes) -> bool:
    """Whether text in UTF-16 begins, whose ASCII characters are bytes with zeros between them."""
    return start.startswith(UTF16_MARKS) and start[4:8].count(0) == 2


def _zip_reader(path: Path, source: str) -> Callable[[Path, str], Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error) as error:
        raise DataError(f"{source} is a truncated or damaged archive: save the data again") from error
    if names and all(name.endswith(".npy") for name in names):
        return _read_npz
    inner = {name.partition("/")[2] for name in names}
    if "data.pkl" in inner and "constants.pkl" not in inner:
        return _read_torch
    raise DataError(f"{source} is an archive without data, perhaps a model: give a file of {READABLE}")


def _read_torch(path: Path, source: str) -> Any:
    try:
        with open_file(path) as file:
            return load_tensors(file)
    except HoldsCodeError as error:
        raise DataError(
            f"{source} holds pickled Python objects ({error}), which run code when loaded: save plain tensors with torch.save"
        ) from error


def _read_npy(path: Path, source: str) -> Tensor:
    with open_file(path) as file:
        return _tensor(read_array(file, path.stat().st_size), source)


def _read_npz(path: Path, source: str) -> Any:
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        check_unpacked(archive, path.stat().st_size)
        arrays: dict[str, Tensor] = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            with archive.open(info) as member:
                arrays[name] = _tensor(read_array(member, info.file_size), f"{source}, array '{shown_bare(name)}'")
    return _by_name(arrays)


def _read_safetensors(path: Path, source: str) -> Mapping[str, Tensor]:
    with open_file(path) as file:
        length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
    if length > min(size - 8, SAFETENSORS_HEADER_BYTES):
        raise ValueError(f"its header says {length:,} bytes, and the file has {size:,}")
    tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    return tensors


def _by_name(tensors: dict[str, Tensor]) -> Any:
    """A tuple, if NumPy named the arrays by position."""
    if not tensors or not all(_UNNAMED.fullmatch(name) for name in tensors):
        return tensors
    return tuple(tensors[name] for name in sorted(tensors, key=lambda name: int(name.removeprefix("arr_"))))


def _tensor(array: Any, source: str) -> Tensor:
    if array.dtype.kind not in "biufc":
        raise DataError(f"{source} holds {array.dtype}, which is not numeric: save numeric arrays")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype in (np.uint16, np.uint32):  # of limited use in torch; both fit into int64
        native = native.astype(np.int64)
    return torch.from_numpy(native)
