"""Lines of JSON that carry their own checksum, and truncated last lines, as a kill or a full disk leaves them. No torch.

A line ends with `,"crc":"1a2b3c4d"}`, the CRC-32 of the line without it. Other programs just see one more key. Lines without it,
written by earlier versions, are accepted.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import IO, Any

_SEAL = re.compile(rb',?"crc":"([0-9a-f]{8})"\}$')
_BLOCK = 1 << 16


class DamageError(ValueError):
    """A line that cannot be read as it was written.

    Args:
        reason: what is wrong.
        torn: whether the line looks as if the machine stopped while writing it.
    """

    def __init__(self, reason: str, *, torn: bool) -> None:
        super().__init__(reason)
        self.torn = torn


def sealed(record: Mapping[str, Any]) -> bytes:
    """One record as a line with its checksum, newline included."""
    body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    comma = b"," if record else b""
    return body[:-1] + comma + b'"crc":"%08x"}\n' % zlib.crc32(body)


def check_seal(line: bytes) -> bytes:
    """A line without its checksum.

    Raises:
        DamageError: if the checksum does not match.
    """
    seal = _SEAL.search(line)
    body = line if seal is None else line[: seal.start()] + b"}"
    if seal is not None and zlib.crc32(body) != int(seal[1], 16):
        raise DamageError("its checksum does not match", torn=True)
    return body


def unsealed(line: bytes) -> dict[str, Any]:
    """The record of a line, without its checksum.

    Raises:
        DamageError: if it is not a JSON object, or its checksum does not match.
    """
    body = check_seal(line)
    try:
        record = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"not JSON ({error})", torn=True) from error
    if not isinstance(record, dict):
        raise DamageError("not a JSON object", torn=False)
    return record


def cut_torn_end(file: IO[bytes]) -> int:
    """Cut off an incomplete last line, in place, and seek to the end; returns the number of bytes removed.

    The file must be open for reading and writing, and nobody else may be writing to it.
    """
    size = file.seek(0, 2)
    end = _line_start(file, size)
    if end == size and size:  # the last line is terminated, but parts of it may never have reached the disk
        start = _line_start(file, size - 1)
        file.seek(start)
        try:
            unsealed(file.read(size - 1 - start))
        except DamageError as error:
            end = start if error.torn else end
    if end < size:
        file.truncate(end)
    file.seek(end)
    return size - end


def _line_start(file: IO[bytes], end: int) -> int:
    """Where the line that ends at byte `end` begins: after the last newline before it."""
    while end > 0:
        first = max(0, end - _BLOCK)
        file.seek(first)
        found = file.read(end - first).rfind(b"\n")
        if found >= 0:
            return first + found + 1
        end = first
    return 0
