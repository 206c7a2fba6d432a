"""An archive for torch's reader with checked records only, without copying the weights.

It is a virtual file, assembled while it is read: headers written by mpq, contents checked by mpq, and pieces of the original file for the
weights, which are plain bytes. Nothing else of the original is reachable through it, so it does not matter how torch's reader would
interpret names, duplicates or other parts of the original.
"""

from __future__ import annotations

import io
import struct
import zlib
from bisect import bisect_right
from itertools import accumulate
from typing import IO, Any

from mpq.data.zip_records import Records

_FOLDER = "archive"
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<4sIQI")
_VERSION, _DATE, _FULL = 45, 33, 0xFFFFFFFF  # zip with 64-bit sizes; the first day of 1980; "see the 64-bit field"

Piece = bytes | tuple[int, int]
"""Bytes of their own, or start and size of a piece of the original file."""


class CleanArchive(io.RawIOBase):
    """A read-only zip archive; records are added before the first read.

    Args:
        original: the file whose pieces `place` adds.
    """

    def __init__(self, original: IO[bytes]) -> None:
        self._original = original
        self._pieces: list[Piece] = []
        self._central: list[bytes] = []
        self._size = 0
        self._position = 0
        self._ends: list[int] = []

    def write_record(self, name: str, content: bytes) -> None:
        """Add a record with new content."""
        self._add(name, content, len(content), zlib.crc32(content))

    def place(self, name: str, records: Records) -> None:
        """Add an unchanged record of the original."""
        size = records.size(name)
        if not records.is_stored(name):
            self.write_record(name, records.read(name, size))
            return
        self._add(name, (records.start(name), size), size, records.checksum(name))

    def finish(self) -> CleanArchive:
        """Write the table of contents; the archive can then be read."""
        start, count = self._size, len(self._central)
        table = b"".join(self._central)
        end = start + len(table)
        self._append(table)
        self._append(_END64.pack(b"PK\6\6", _END64.size - 12, _VERSION, _VERSION, 0, 0, count, count, len(table), start))
        self._append(_LOCATOR64.pack(b"PK\6\7", 0, end, 1))
        short = min(count, 0xFFFF)
        self._append(_END.pack(b"PK\5\6", 0, 0, short, short, min(len(table), _FULL), min(start, _FULL), 0))
        self._ends = list(accumulate(_length(piece) for piece in self._pieces))
        return self

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read from any position: always."""
        return True

    def tell(self) -> int:
        """The position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, like in any file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the current position on, up to the end of the archive."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._size:
            got = self._fill(view[done:])
            if not got:
                break
            done += got
            self._position += got
        return done

    def _fill(self, view: memoryview) -> int:
        """Read bytes of one piece from the current position on; returns their number."""
        number = bisect_right(self._ends, self._position)
        piece = self._pieces[number]
        skipped = self._position - (self._ends[number] - _length(piece))
        if isinstance(piece, bytes):
            found = memoryview(piece)[skipped : skipped + len(view)]
            view[: len(found)] = found
            return len(found)
        self._original.seek(piece[0] + skipped)
        return self._original.readinto(view[: piece[1] - skipped])  # type: ignore[attr-defined, no-any-return]

    def _add(self, name: str, piece: Piece, size: int, checksum: int) -> None:
        raw = f"{_FOLDER}/{name}".encode("ascii")
        head = (_VERSION, 0, 0, 0, _DATE, checksum)
        extra = struct.pack("<HHQQQ", 1, 24, size, size, self._size)
        self._central.append(_CENTRAL.pack(b"PK\1\2", _VERSION, *head, _FULL, _FULL, len(raw), len(extra), 0, 0, 0, 0, _FULL) + raw + extra)
        local = struct.pack("<HHQQ", 1, 16, size, size)
        self._append(_LOCAL.pack(b"PK\3\4", *head, _FULL, _FULL, len(raw), len(local)) + raw + local)
        self._append(piece)

    def _append(self, piece: Piece) -> None:
        if _length(piece):
            self._pieces.append(piece)
            self._size += _length(piece)


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece[1]
