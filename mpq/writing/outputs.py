"""Output paths: what may be overwritten, temporary files while writing, and syncing afterwards. No torch."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mpq.errors import OutputError
from mpq.writing.locks import is_at, lock, runs

_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
    (stat.S_ISFIFO, "it is a pipe"),
    (stat.S_ISSOCK, "it is a socket"),
)
_ELSEWHERE = "choose another place with --output"
_OWN_ENDINGS = (".sensitivity.jsonl", ".mpq.safetensors", ".mpq.safetensors.index.json", ".report.html", ".yaml")
_DAY = 86_400.0  # seconds
_count = itertools.count()


def refuse_special(path: Path) -> None:
    """Refuse to overwrite anything but a plain file: no folder, link, device, pipe or socket.

    Raises:
        OutputError: naming what it is.
    """
    if str(path) == "-":
        raise OutputError("cannot write -: mpq writes files, not to standard output; name a file with --output, or use --json")
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # it does not exist, or writing will fail with the reason
    if stat.S_ISREG(mode):
        return
    if stat.S_ISLNK(mode):
        raise OutputError(f"cannot write {path}: it is a link to {path.readlink()}; name that file itself, or {_ELSEWHERE}")
    kind = next((words for is_kind, words in _KINDS if is_kind(mode)), "it is not a file")
    raise OutputError(f"cannot write {path}: {kind}; {_ELSEWHERE}")


def refuse_inputs(path: Path, inputs: Iterable[Path | None]) -> None:
    """Refuse to overwrite an input.

    Args:
        path: the file that will be written, or the folder that files will be written to.
        inputs: files that are read, and folders whose files are read.

    Raises:
        OutputError: naming the input.
    """
    if not path.exists():
        return
    for given in inputs:
        if given is None or not given.exists():
            continue
        if path.is_dir() and given.is_dir() and path.samefile(given):
            raise OutputError(f"cannot write to {path}: it is an input of this command; {_ELSEWHERE}")
        for file in _read_in(given) if given.is_dir() else (given,):
            if file.is_file() and file.samefile(path):
                raise OutputError(f"cannot write {path}: it is an input of this command ({file}); {_ELSEWHERE}")


def _read_in(folder: Path) -> Iterator[Path]:
    """The files of a model's folder that may be read: all except those that mpq writes."""
    return (file for file in folder.rglob("*") if not file.name.endswith(_OWN_ENDINGS))


@contextmanager
def unfinished(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A temporary file next to `path`, to be moved there: its path, and the file open for reading and writing.

    It is locked while it is written, so that files of killed processes can be recognized; those are removed here. It is deleted afterwards.

    Raises:
        OSError: if it cannot be made.
    """
    remove_dead(path.parent, f".{path.name}.", ".partial")
    partial, file = _made(path)
    try:
        yield partial, file
    finally:
        with suppress(OSError):  # a full disk, which was already reported
            file.close()
        with suppress(OSError):  # it was moved, or never created
            partial.unlink()


def sync_folder(folder: Path) -> None:
    """Sync the directory entries of a folder to disk.

    Raises:
        OSError: if the disk fails.
    """
    if os.name != "posix" or not os.access(folder, os.R_OK):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def remove_dead(folder: Path, start: str, end: str) -> None:
    """Remove temporary files of killed processes: those named `start…end` that no process has locked.

    Each name holds a host. A free lock on another host's file proves little (see `writing/locks.py`), so those files are kept for a day.
    """
    try:
        found = [file for file in folder.iterdir() if file.name.startswith(start) and file.name.endswith(end)]
    except OSError:
        return  # writing there will fail with the reason
    for file in found:
        with suppress(OSError):
            if _is_ours(file.name[len(start) : -len(end)]) or time.time() - file.stat().st_mtime > _DAY:
                _remove_if_free(file)


def own_mark() -> str:
    """A part of the name of temporary files: host, process ID and a number."""
    return f"{_host()}-{os.getpid()}-{next(_count)}"


def _made(path: Path) -> tuple[Path, IO[bytes]]:
    while True:
        partial = path.parent / f".{path.name}.{own_mark()}.partial"
        try:
            file = partial.open("xb+")
        except FileExistsError:
            continue  # left by an earlier process with the same ID
        if lock(file.fileno()) and is_at(partial, file.fileno()):
            return partial, file
        file.close()  # another process removed it between creation and locking


def _is_ours(mark: str) -> bool:
    """Whether a temporary file's name says that a process on this host wrote it."""
    host, _, process = mark.partition("-")
    if not process:  # older versions used the process ID alone, and no lock
        return mark.isdigit() and not runs(int(mark))
    return host == _host()


def _remove_if_free(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        if lock(descriptor) and is_at(file, descriptor):
            file.unlink()
    finally:
        os.close(descriptor)


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
