"""One malicious file and what reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Make = Callable[[Path], object]
"""Writes the malicious file into the current folder, given the marker's path."""


@dataclass(frozen=True)
class Case:
    """What is made, and the commands that read it; "load:FILE" is mpq.load and a call of the model, "model:FILE" mpq.load_model.

    Args:
        name: of the case.
        make: writes the file.
        lines: commands.
        trusted: whether the commands trust the file, so that the marker must be there: proof that the file attacks what it says.
    """

    name: str
    make: Make
    lines: tuple[str, ...]
    trusted: bool = False
