"""Which of mpq's files a file is, told by its first bytes. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mpq.errors import FormatError

Kind = Literal["artifact", "sensitivity", "plan"]
_PREFIX = 4096
_NAMES = "name a sensitivity file, a plan or an artifact"


def kind_of(path: Path) -> Kind:
    """What `path` must be read as; whether it is sound is seen by its reader.

    Raises:
        FormatError: if there is no such file, it is empty, or it is none of mpq's.
    """
    if path.is_dir():
        raise FormatError(f"cannot read {path}: it is a folder; {_NAMES}")
    try:
        with path.open("rb") as file:
            start = file.read(_PREFIX)
    except FileNotFoundError as error:
        raise FormatError(f"cannot read {path}: no such file; {_NAMES}") from error
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}; {_NAMES}") from error
    if not start:
        raise FormatError(f"{path} is empty: {_NAMES}")
    if start[8:9] == b"{" and b"\0" in start[:8]:
        return "artifact"
    if b"\0" in start or not _is_text(start):
        raise FormatError(f"{path} is not a file that mpq wrote: {_NAMES}")
    return "sensitivity" if start[:1] == b"{" else "plan"


def _is_text(start: bytes) -> bool:
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return len(start) == _PREFIX and error.start > _PREFIX - 4  # the prefix may end within a character
    return True
