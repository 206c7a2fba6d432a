"""NumPy arrays, read only if the size of the file matches its header: a header alone can claim any shape."""

from __future__ import annotations

import math
import zipfile
from typing import IO, Any

import numpy as np

from mpq.limits import ARCHIVE_FREE_BYTES, ARCHIVE_RATIO, ARCHIVE_RECORDS


def read_array(file: IO[bytes], size: int) -> Any:
    """The array in an .npy file of `size` bytes, without pickles; a non-numeric array is returned without its contents.

    Raises:
        ValueError: if it is damaged, has Python objects, or its size differs from its header.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version[0]}.{version[1]} of NumPy")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("pickled Python objects")
    if dtype.kind not in "biufc":
        return np.empty(0, dtype=dtype)
    claimed = math.prod(shape) * dtype.itemsize
    found = size - file.tell()
    if any(side < 0 for side in shape) or claimed != found:
        raise ValueError(f"its header says {claimed:,} bytes, and there are {found:,}")
    content = bytearray(claimed)
    if claimed and file.readinto(content) != claimed:  # type: ignore[attr-defined]
        raise ValueError(f"it ends before the {claimed:,} bytes that its header says")
    flat = np.frombuffer(content, dtype=dtype)
    return flat.reshape(shape[::-1]).T if by_columns else flat.reshape(shape)


def check_unpacked(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive of `size` bytes that unpacks to too much, or that has two members with one name.

    Raises:
        ValueError: if it does.
    """
    members = archive.infolist()
    unpacked = sum(info.file_size for info in members)
    if len(members) > ARCHIVE_RECORDS or unpacked > max(ARCHIVE_FREE_BYTES, ARCHIVE_RATIO * size):
        raise ValueError(f"{len(members):,} members of {unpacked:,} bytes in a file of {size:,}")
    if len({info.filename for info in members}) != len(members):
        raise ValueError("two members of one name")
