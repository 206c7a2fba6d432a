"""Places that are written to: what may be there before, what is there while a file is written, and that it stays afterwards. No torch."""

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
    """Refuse to write where something other than a plain file is: a folder, a link, a device, a pipe, a socket.

    Raises:
        OutputError: saying what is there.
    """
    if str(path) == "-":
        raise OutputError("cannot write -: mpq writes files, not to standard output; name a file with --output, or use --json")
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # nothing is there, or the attempt to write will say what is wrong
    if stat.S_ISREG(mode):
        return
    if stat.S_ISLNK(mode):
        raise OutputError(f"cannot write {path}: it is a link to {path.readlink()}; name that file itself, or {_ELSEWHERE}")
    kind = next((words for is_kind, words in _KINDS if is_kind(mode)), "it is not a file")
    raise OutputError(f"cannot write {path}: {kind}; {_ELSEWHERE}")


def refuse_inputs(path: Path, inputs: Iterable[Path | None]) -> None:
    """Refuse to write over what is being read.

    Args:
        path: the file that will be written, or the folder that files will be written to.
        inputs: files that are read, and folders of which any file is.

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
    """What may be read in the folder of a model: everything but what mpq itself writes there."""
    return (file for file in folder.rglob("*") if not file.name.endswith(_OWN_ENDINGS))


@contextmanager
def unfinished(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file beside `path` for what will be moved there: its own path, and the file open for reading and writing.

    It is locked while it is written, so that those of killed processes are known, and removed here. It is gone afterwards.

    Raises:
        OSError: if it cannot be made.
    """
    remove_dead(path.parent, f".{path.name}.", ".partial")
    partial, file = _made(path)
    try:
        yield partial, file
    finally:
        with suppress(OSError):  # a full disk, which has been told
            file.close()
        with suppress(OSError):  # it has been moved, or could not be made
            partial.unlink()


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, too.

    Raises:
        OSError: if the disk fails.
    """
    if os.name != "posix" or not os.access(folder, os.R_OK):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # file systems that sync no folders
            raise
    finally:
        os.close(descriptor)


def remove_dead(folder: Path, start: str, end: str) -> None:
    """Remove files that killed processes were writing: those named `start…end` that nobody has locked.

    A host stands in each name. That the lock of another host's file is free says little (see `writing/locks.py`): those stay for a day.
    """
    try:
        found = [file for file in folder.iterdir() if file.name.startswith(start) and file.name.endswith(end)]
    except OSError:
        return  # the attempt to write there will say why
    for file in found:
        with suppress(OSError):
            if _is_ours(file.name[len(start) : -len(end)]) or time.time() - file.stat().st_mtime > _DAY:
                _remove_if_free(file)


def own_mark() -> str:
    """A text for the names of files that are being written: this host, this process, and a number."""
    return f"{_host()}-{os.getpid()}-{next(_count)}"


def _made(path: Path) -> tuple[Path, IO[bytes]]:
    while True:
        partial = path.parent / f".{path.name}.{own_mark()}.partial"
        try:
            file = partial.open("xb+")
        except FileExistsError:
            continue  # left by a process of the same number
        if lock(file.fileno()) and is_at(partial, file.fileno()):
            return partial, file
        file.close()  # taken for dead between its making and its locking


def _is_ours(mark: str) -> bool:
    """Whether the middle of a name says that a process of this host wrote it."""
    host, _, process = mark.partition("-")
    if not process:  # the name of older versions, which locked nothing: PID alone
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
