"""The records of a torch zip archive, listed strictly, so that every reader interprets them in the same way.

Readers of zip archives interpret names differently: torch's ignores case, others cut at a zero byte, replace backslashes, or use the first
or the last of two records with one name. An archive in which any of this could matter is refused.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from mpq.limits import ARCHIVE_FREE_BYTES, ARCHIVE_RATIO, ARCHIVE_RECORDS, SHOWN_TEXT

_NAME = re.compile(r"(\.data/|[\w\-+$@ ][\w.\-+$@ ]*/)*([\w\-+$@ ][\w.\-+$@ ]*|\.format_version|\.storage_alignment)", re.ASCII)
_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED = 1


class RecordError(ValueError):
    """An archive that is damaged, or that readers could interpret differently."""


class Records:
    """The records of an archive, by their names below its one top folder.

    Args:
        file: the archive.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        with _foreseen():
            self._archive = zipfile.ZipFile(file)
            self._size = file.seek(0, 2)
        listed = self._archive.infolist()
        if len(listed) > ARCHIVE_RECORDS:
            raise RecordError(f"{len(listed):,} records, more than the {ARCHIVE_RECORDS:,} allowed")
        self._records: dict[str, zipfile.ZipInfo] = {}
        folded: set[str] = set()
        for info in listed:
            _check(info)
            name = info.filename.partition("/")[2]
            if name.lower() in folded:
                raise RecordError(f"two records named {_shown(name)}")
            folded.add(name.lower())
            self._records[name] = info
        if len({info.filename.partition("/")[0] for info in listed}) != 1:
            raise RecordError("records outside its one folder")
        self._check_sizes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def size(self, name: str) -> int:
        """Bytes of a record, unpacked."""
        return self._records[name].file_size

    def is_stored(self, name: str) -> bool:
        """Whether a record is stored without compression."""
        return self._records[name].compress_type == zipfile.ZIP_STORED

    def checksum(self, name: str) -> int:
        """The CRC-32 of a record, from the archive."""
        return self._records[name].CRC

    def read(self, name: str, limit: int) -> bytes:
        """The contents of a record, after checking its checksum.

        Raises:
            RecordError: if it is damaged, or larger than `limit` bytes.
        """
        if self.size(name) > limit:
            raise RecordError(f"{self.size(name):,} bytes in {_shown(name)}, more than the {limit:,} allowed")
        with _foreseen(), self._archive.open(self._records[name]) as record:
            content = record.read(limit + 1)
        if len(content) != self.size(name):
            raise RecordError(f"a wrong size of {_shown(name)}")
        return content

    def start(self, name: str) -> int:
        """The offset of a stored record's bytes in the file."""
        info = self._records[name]
        self._file.seek(info.header_offset)
        head = self._file.read(_LOCAL.size)
        if len(head) != _LOCAL.size or head[:4] != b"PK\x03\x04":
            raise RecordError(f"no record where {_shown(name)} should begin")
        _, name_length, extra_length = _LOCAL.unpack(head)
        start = info.header_offset + _LOCAL.size + int(name_length) + int(extra_length)
        if start + info.file_size > self._size:
            raise RecordError(f"a record {_shown(name)} that is cut off")
        return start

    def _check_sizes(self) -> None:
        stored = sum(self.size(name) for name in self if self.is_stored(name))
        unpacked = sum(map(self.size, self))
        limit = max(ARCHIVE_FREE_BYTES, ARCHIVE_RATIO * self._size)
        if stored > self._size or unpacked > limit:
            raise RecordError(f"{unpacked:,} bytes in a file of {self._size:,}")


def _check(info: zipfile.ZipInfo) -> None:
    if info.orig_filename != info.filename or not _NAME.fullmatch(info.filename.partition("/")[2]):
        raise RecordError(f"the unusual record name {_shown(info.orig_filename)}")
    if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RecordError(f"a record {_shown(info.filename)} that is encrypted, or compressed in an unusual way")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise RecordError(f"two sizes of the record {_shown(info.filename)}")


@contextmanager
def _foreseen() -> Iterator[None]:
    """Turns errors of the standard library on damaged archives into RecordError."""
    try:
        yield
    except RecordError:
        raise
    except Exception as error:  # any failure in the reader is caused by the file
        raise RecordError(f"damaged: {str(error) or type(error).__name__}") from error


def _shown(name: str) -> str:
    return repr(name[:SHOWN_TEXT])
