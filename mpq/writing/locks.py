"""Locks between processes: advisory, released by the system with the process, however it ends. No torch.

`held` is for work of minutes or hours that must not be done twice on one file; a second process gets an error that names the first.
`exclusive` is for moments: one line appended, one file moved. Both are system locks (`flock`), so a killed process holds nothing. They
work between the hosts of a shared folder where that is a local or an NFS 4 file system; where a mount keeps locks to each host (`nolock`,
`local_lock`), they cannot separate two hosts, and without any locks they separate no processes.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from mpq.errors import HeldError, OutputError

_MISSING = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}  # this file system has no locks
_POLL = 0.01  # seconds
_WORDS = 4096  # bytes of the description that a holder writes


@contextmanager
def held(path: Path, *, work: str) -> Iterator[None]:
    """Keep other processes from doing the same work on `path`, which need not exist, until this ends.

    Args:
        path: the file that the work makes; another name of it, by a link, is the same file.
        work: what the message calls it, for example "analysis".

    Raises:
        HeldError: if another process has it: the message names the process, its host, its start, and what to do.
        OutputError: if the folder is missing or read-only.
    """
    real = Path(os.path.realpath(path))
    side = real.with_name(f".{real.name}.lock")
    with ExitStack() as stack:
        try:
            descriptor = _taken(side)
            if descriptor is None:
                raise HeldError(f"another {work} is writing {path} ({_holder(side)}): wait until it ends, or write elsewhere")
            stack.callback(_release, side, descriptor)
            if not _hard_link_is_free(real, stack):
                raise HeldError(f"another {work} is writing {path} under another name, by a hard link: wait until it ends")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place with --output") from error
        yield


def refuse_held(path: Path, *, work: str) -> None:
    """Fail now, before a model is loaded, if another process is writing `path`.

    Raises:
        HeldError: as `held` does.
    """
    with held(path, work=work):
        pass


@contextmanager
def exclusive(descriptor: int) -> Iterator[None]:
    """Wait for the lock on an open file, and hold it inside the `with`."""
    while not lock(descriptor):
        time.sleep(_POLL)
    try:
        yield
    finally:
        unlock(descriptor)


def lock(descriptor: int) -> bool:
    """Lock an open file; False if another process holds it. True on file systems without locks."""
    return _locked(descriptor) is not False


def has_locks(descriptor: int) -> bool:
    """Whether the file system of an open file has locks."""
    found = _locked(descriptor)
    if found:
        unlock(descriptor)
    return found is not None


def _locked(descriptor: int) -> bool | None:
    """Whether the lock was acquired; None on file systems without locks."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(descriptor, _WORDS, os.SEEK_SET)  # beyond the holder's description, which others read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _MISSING:
            return None
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


def unlock(descriptor: int) -> None:
    """Unlock an open file."""
    with suppress(OSError):
        if os.name == "nt":
            import msvcrt

            os.lseek(descriptor, _WORDS, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _taken(side: Path) -> int | None:
    """The lock file, open and locked, with a description of its holder; None if another process holds it."""
    while True:
        descriptor = os.open(side, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        if not lock(descriptor):
            os.close(descriptor)
            return None
        if is_at(side, descriptor):
            break
        os.close(descriptor)  # the previous holder removed it in the meantime
    words = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(words).encode())
    return descriptor


def _release(side: Path, descriptor: int) -> None:
    with suppress(OSError):  # Windows cannot remove an open file
        side.unlink()
    os.close(descriptor)
    if os.name == "nt":
        side.unlink(missing_ok=True)


def _holder(side: Path) -> str:
    try:
        words = json.loads(side.read_bytes()[:_WORDS])
        return f"process {int(words['process'])} on {str(words['host'])[:255]}, since {str(words['since'])[:40]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it does not say which process"  # it is just starting or ending


def _hard_link_is_free(real: Path, stack: ExitStack) -> bool:
    """Lock the file itself, which may have other names in other folders."""
    if not real.is_file():
        return True
    descriptor = os.open(real, os.O_RDWR)
    stack.callback(os.close, descriptor)
    return lock(descriptor)


def runs(process: int) -> bool:
    """Whether a process with this ID runs on this host, as any user."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
