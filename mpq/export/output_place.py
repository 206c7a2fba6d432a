"""The output of an export: checked before the work begins, and put in place only when everything is written."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mpq.errors import MpqError, OutputError
from mpq.writing.locks import held
from mpq.writing.outputs import refuse_special, sync_folder

_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
_DISK = re.compile("|".join(re.escape(os.strerror(number)) for number in _FAILURES))  # in the libraries' own errors


def check_place(output: Path, *, folder: bool, suffix: str | None = None) -> None:
    """Refuse an output that cannot be written, as far as this can be known in advance.

    Args:
        output: the file or folder to write.
        folder: whether it will be a folder.
        suffix: the required ending of its name, if the reading program needs one.

    Raises:
        OutputError: with the reason.
    """
    other = "choose another place with --output"
    if suffix is not None and output.suffix != suffix:
        raise OutputError(f"cannot write {output}: the name must end with {suffix}")
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: there is no folder {output.parent}; {other}")
    if folder and output.exists() and not output.is_dir():
        raise OutputError(f"cannot write {output}: it is a file, and this target writes a folder; {other}")
    if not folder and output.is_dir():
        raise OutputError(f"cannot write {output}: it is a folder, and this target writes a file; {other}")
    if not output.is_dir() or output.is_symlink():
        refuse_special(output)


@contextmanager
def staged(folder: Path, *, last: str) -> Iterator[Path]:
    """An empty folder whose files move to `folder` when all are written; without the file `last`, no program loads them.

    `folder` is created if needed. In no case does `last` lead to a mixture of old and new files, and two processes never write there at
    once. Leftovers of a killed process are removed. Files get the usual mode (by umask) and are synced to disk.

    Raises:
        HeldError: if another process writes `last` there.
        OutputError: if the folder is read-only or full, or something other than a plain file exists there; nothing is left behind.
    """
    target, new = folder / last, not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        with held(target, work="export"), _staging(folder / f".{last}.partial") as made:
            yield made
            files = sorted(made.iterdir(), key=lambda file: file.name == last)
            for file in files:
                refuse_special(folder / file.name)
            for file in files:
                _settle(file, mode=made.stat().st_mode & 0o666)
            target.unlink(missing_ok=True)
            for file in files:
                file.replace(folder / file.name)
            sync_folder(folder)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}; choose another place with --output") from error
    except Exception as error:
        if isinstance(error, MpqError) or (said := _DISK.search(str(error))) is None:
            raise
        raise OutputError(f"cannot write {target}: {said[0]}; choose another place with --output") from error
    finally:
        if new:
            with suppress(OSError):  # it is full, or could not be created
                folder.rmdir()


@contextmanager
def _staging(made: Path) -> Iterator[Path]:
    """A new folder, removed afterwards; leftovers of an earlier process are removed too."""
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _settle(file: Path, *, mode: int) -> None:
    """Set the mode of a file, and sync it to disk."""
    file.chmod(mode)
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
