"""The text of a file: UTF-8, or UTF-16 with its mark, plain or compressed with gzip."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path
from typing import IO

from mpq.errors import DataError
from mpq.files import open_file
from mpq.limits import TEXT_BYTES

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GZIP = b"\x1f\x8b"
_PACKED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}


def read_text_file(path: Path, source: str) -> str:
    """The text of a file, read completely.

    Args:
        path: the file.
        source: how the user wrote it, for messages.

    Raises:
        DataError: if it has more than `TEXT_BYTES` when unpacked, or is not text.
    """
    with open_file(path) as file:
        start = file.read(6)
        file.seek(0)
        content = _unpacked(file, source) if start[:2] == _GZIP else file.read(TEXT_BYTES + 1)
    packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
    if packed is not None:
        raise DataError(f"{source} is compressed with {packed}: unpack it, or compress it with gzip")
    if len(content) > TEXT_BYTES:
        raise DataError(f"{source} has more than {TEXT_BYTES:,} bytes of text, too many to read completely: use a part of it")
    return _decoded(content, source)


def _unpacked(file: IO[bytes], source: str) -> bytes:
    try:
        with gzip.open(file) as inner:
            return bytes(inner.read(TEXT_BYTES + 1))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{source} is compressed with gzip and damaged ({error}): compress it again") from error


def _decoded(content: bytes, source: str) -> str:
    encoding = "utf-16" if content.startswith(UTF16_MARKS) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        kind = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise DataError(f"{source} is neither a file of tensors nor {kind} text (byte {error.start}): give one of these") from error
    if "\x00" in text:
        raise DataError(f"{source} is neither a file of tensors nor text: it contains zero bytes")
    return text
