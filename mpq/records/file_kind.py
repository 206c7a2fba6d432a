"""Detects which of mpq's file types a file is, from its first bytes. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mpq.errors import FormatError
from mpq.files import PREFIX, first_bytes
from mpq.records.artifact_files import is_index

Kind = Literal["artifact", "sensitivity", "plan"]
_NAMES = "name a sensitivity file, a plan or an artifact"


def kind_of(path: Path) -> Kind:
    """The type of the file at `path`; its reader checks whether it is valid.

    Raises:
        FormatError: if it does not exist, is empty, or is not one of mpq's files.
    """
    if is_index(path):
        return "artifact"
    start = first_bytes(path, error=FormatError, remedy=_NAMES)
    if start[8:9] == b"{" and b"\0" in start[:8]:
        return "artifact"
    if b"\0" in start or not _is_text(start):
        raise FormatError(f"{path} is not a file that mpq wrote: {_NAMES}")
    return "sensitivity" if start[:1] == b"{" else "plan"


def _is_text(start: bytes) -> bool:
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return len(start) == PREFIX and error.start > PREFIX - 4  # the prefix may end within a character
    return True
