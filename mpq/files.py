"""Files: atomic writes, the append-only journal, content hashes, format versions. No torch."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from mpq.errors import FormatError, MpqError
from mpq.errors import OutputError as OutputError
from mpq.limits import LINE_BYTES, SENSITIVITY_BYTES
from mpq.writing.checksums import DamageError, check_seal, cut_torn_end, sealed, unsealed
from mpq.writing.locks import exclusive
from mpq.writing.outputs import refuse_special, sync_folder, unfinished

_BLOCK = 1 << 20
PREFIX = 4096  # bytes that `first_bytes` reads


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a binary file atomically: it appears at `path` complete or not at all, and is on disk when this returns.

    If several processes write the same path, the last one to finish wins; leftovers of killed processes are removed.

    Raises:
        OutputError: if the folder is missing, read-only or full, or something other than a plain file is there; nothing is left behind.
    """
    refuse_special(path)
    try:
        with unfinished(path) as (partial, file):
            yield file
            file.flush()
            os.fsync(file.fileno())
            refuse_special(path)
            if os.name == "nt":
                file.close()  # Windows cannot move an open file
            partial.replace(path)
            sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place with --output") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def exists(path: Path) -> bool:
    """Whether `path` exists; False if it cannot be a path, as with arbitrary text from a file."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def relative_source(source: str, folder: Path) -> str:
    """The name of a data source for a file in `folder`: a path relative to it, with the part after "?"; anything else unchanged."""
    path, mark, rest = source.partition("?")
    if not exists(Path(path)):
        return source
    return Path(os.path.relpath(Path(path).resolve(), folder.resolve())).as_posix() + mark + rest


def open_file(path: Path) -> IO[bytes]:
    """Open a file for reading; a pipe or a device, which may never end, is refused before anything waits for it.

    Raises:
        OSError: if it cannot be opened, or is not a plain file.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file: write it to a file first")
    return file


def sha256_of(paths: Iterable[Path]) -> str:
    """One hexadecimal SHA-256 over the contents of `paths` in the given order; names do not matter."""
    digest = hashlib.sha256()
    for path in paths:
        with open_file(path) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def first_bytes(path: Path, *, error: type[MpqError], remedy: str, name: str | None = None) -> bytes:
    """The first bytes of a file, at most `PREFIX`, to detect its kind.

    Args:
        path: the file.
        error: the error to raise if the file does not exist, is a folder, cannot be read, or is empty.
        remedy: what the message advises.
        name: the name of the file in the message; None uses its path.
    """
    shown = name or str(path)
    try:
        with open_file(path) as file:
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
        raise FormatError(f"{path} is not {kind}: it has no mpq version")
    if found > supported:
        raise FormatError(f"{path} is {kind} of version {found}, this mpq reads up to {supported}: upgrade mpq")


class Journal:
    """An append-only file of JSON lines with checksums; every line is flushed and synced, so a killed process loses at most one line.

    Args:
        path: the file.
        full: what to do if it cannot be written, for the message.
        shared: whether other processes may append to it at the same time.
    """

    def __init__(self, path: Path, *, full: str = "free some space and run the command again, it resumes", shared: bool = False) -> None:
        self.path = path
        self._full, self._shared = full, shared
        self._file: IO[bytes] | None = None

    @classmethod
    def create(cls, path: Path, first: Mapping[str, Any]) -> Journal:
        """A new journal whose first line is `first`; it appears together with that line or not at all."""
        with atomic_write(path) as file:
            file.write(journal_line(first))
        return cls(path)

    def append(self, *records: Mapping[str, Any]) -> None:
        """Add lines and sync them to disk.

        Raises:
            OutputError: if the disk is full or the file has become unwritable.
        """
        try:
            begun, file = self._file is not None, self._file or self.path.open("rb+")
            self._file = file
            with exclusive(file.fileno()) if self._shared else nullcontext():
                if self._shared or not begun:
                    cut_torn_end(file)
                file.write(b"".join(journal_line(record) for record in records))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):  # the failed write cannot be flushed either
                self.close()
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}; {self._full}") from error

    def close(self) -> None:
        """Close the file; appending again reopens it."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def journal_lines(
    path: Path,
    *,
    absent: str = "",
    remedy: str = "run `mpq analyze` again",
    smaller: str = "analyze fewer samples",
    on_note: Callable[[str], None] | None = None,
) -> Iterator[tuple[int, bytes]]:
    """The complete lines of a journal and their numbers from 1, one at a time, checked if they have a checksum.

    A last line that was cut off by a kill is skipped.

    Args:
        path: the journal.
        absent: what to do if the file cannot be read, for the message.
        remedy: what to do if it is damaged or empty.
        smaller: what to do if it is too large.
        on_note: called with a note on what was skipped.

    Raises:
        FormatError: if the file is missing, has no complete line, exceeds a limit, or a line is damaged.
    """
    number, last = 0, b""
    try:
        if path.stat().st_size > SENSITIVITY_BYTES:
            raise FormatError(f"{path} has more than {SENSITIVITY_BYTES:,} bytes, which is too large to be right: {smaller}")
        with open_file(path) as file:
            while (line := file.readline(LINE_BYTES + 1)).endswith(b"\n"):
                if last:
                    number += 1
                    yield number, _checked(last, path, number, remedy)
                last = line
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}{absent and f'; {absent}'}") from error
    if len(line) > LINE_BYTES:
        raise FormatError(f"{path}, line {number + (2 if last else 1)} has more than {LINE_BYTES:,} bytes: the file is damaged, {remedy}")
    torn = bool(line)
    if last:
        try:
            unsealed(last.rstrip(b"\n"))
            number += 1
            yield number, last
        except DamageError as error:
            if not error.torn or torn:
                raise FormatError(f"{path}, line {number + 1}: {error}; the file is damaged, {remedy}") from error
            torn = True
    if not number:
        raise FormatError(f"{path} holds no whole line: {remedy}")
    if torn and on_note is not None:
        on_note(f"{path}, line {number + 1}: cut off while it was written, so left out")


def _checked(line: bytes, path: Path, number: int, remedy: str) -> bytes:
    try:
        check_seal(line.rstrip(b"\n"))
    except DamageError as error:
        raise FormatError(f"{path}, line {number}: {error}; the file is damaged, {remedy}") from error
    return line


def journal_line(record: Mapping[str, Any]) -> bytes:
    """One record as a line of a journal."""
    return sealed(record)
