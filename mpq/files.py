"""Files: atomic writes, the append-only journal, content hashes, format versions. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mpq.errors import FormatError, MpqError
from mpq.limits import LINE_BYTES, SENSITIVITY_BYTES

_BLOCK = 1 << 20
PREFIX = 4096  # bytes that `first_bytes` reads


class OutputError(MpqError):
    """A file that cannot be written."""


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` whole, or not at all.

    Raises:
        OutputError: if the folder is missing, read-only or full; nothing is left behind.
    """
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place with --output") from error
    finally:
        with suppress(OSError):  # what could not be made cannot be removed either
            partial.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def exists(path: Path) -> bool:
    """Whether there is something at `path`; not at what cannot be a path, as a text from a file may be."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def sha256_of(paths: Iterable[Path]) -> str:
    """One hexadecimal SHA-256 over the contents of `paths` in the given order; names do not matter."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def first_bytes(path: Path, *, error: type[MpqError], remedy: str, name: str | None = None) -> bytes:
    """The first bytes of a file, at most `PREFIX`, which tell what it is.

    Args:
        path: the file.
        error: what is raised if there is no such file, it is a folder, it cannot be read, or it is empty.
        remedy: what the message advises.
        name: what the message calls the file; None takes its path.
    """
    shown = name or str(path)
    try:
        with path.open("rb") as file:
            start = file.read(PREFIX)
    except FileNotFoundError as cause:
        raise error(f"{shown} does not exist: {remedy}") from cause
    except IsADirectoryError as cause:
        raise error(f"{shown} is a folder: {remedy}") from cause
    except OSError as cause:
        raise error(f"cannot read {shown}: {cause.strerror or cause}; {remedy}") from cause
    if not start:
        raise error(f"{shown} is empty: {remedy}")
    return start


def check_version(found: object, *, supported: int, path: Path | str, kind: str) -> None:
    """Refuse a file of another format version.

    Raises:
        FormatError: if `found` is not a version number, or is newer than `supported`.
    """
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise FormatError(f"{path} is not {kind}: it carries no mpq version")
    if found > supported:
        raise FormatError(f"{path} is {kind} of version {found}, this mpq reads up to {supported}: upgrade mpq")


class Journal:
    """An append-only file of JSON lines; every line is flushed and synced, so a killed process loses at most one line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    @classmethod
    def create(cls, path: Path, first: Mapping[str, Any]) -> Journal:
        """A new journal whose first line is `first`; it appears with that line or not at all."""
        with atomic_write(path) as file:
            file.write(journal_line(first))
        return cls(path)

    def append(self, *records: Mapping[str, Any]) -> None:
        """Add lines and sync them to disk.

        Raises:
            OutputError: if the disk is full or the file has become unwritable.
        """
        try:
            if self._file is None:
                self._trim()
                self._file = self.path.open("ab")
            self._file.write(b"".join(journal_line(record) for record in records))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # what could not be written cannot be flushed either
                self.close()
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}; free some space and run the command again, it resumes"
            ) from error

    def close(self) -> None:
        """Close the file; appending again reopens it."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _trim(self) -> None:
        """Drop a last line that was cut off by a kill."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)


def journal_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a journal and their numbers from 1, one at a time; a last line cut off by a kill is left out.

    Raises:
        FormatError: if the file is missing, holds no whole line, or exceeds a limit.
    """
    number = 0
    try:
        if path.stat().st_size > SENSITIVITY_BYTES:
            raise FormatError(f"{path} has more than {SENSITIVITY_BYTES:,} bytes, which is too large to be right: analyze fewer samples")
        with path.open("rb") as file:
            while (line := file.readline(LINE_BYTES + 1)).endswith(b"\n"):
                number += 1
                yield number, line
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from error
    if len(line) > LINE_BYTES:
        raise FormatError(f"{path}, line {number + 1} has more than {LINE_BYTES:,} bytes: the file is damaged, run `mpq analyze` again")
    if not number:
        raise FormatError(f"{path} holds no whole line: run `mpq analyze` again")


def journal_line(record: Mapping[str, Any]) -> bytes:
    """One record as a line of a journal."""
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
