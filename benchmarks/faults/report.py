"""What the attacks found: faults, one row per part, and the table of all rows with the state of the machine."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("torch", "numpy", "optuna", "safetensors", "pyyaml", "transformers")
_SHOWN = 240


@dataclass(frozen=True)
class Fault:
    """One thing that went wrong.

    Args:
        kind: what is wrong, in a few words, such as "ValueError" or "left a file behind".
        where: what was attacked, and where in mpq it failed.
        detail: the message.
        repeat: the options that run this case again.
        times: how many cases failed in this way.
    """

    kind: str
    where: str
    detail: str
    repeat: str
    times: int = 1


@dataclass
class Row:
    """What one part found.

    Args:
        part: its name.
        tried: number of cases.
        lost: number of cases that failed.
        seconds: of the slowest case.
        bytes: of the case that held the most memory above what the harness itself holds.
        faults: each kind once.
        skipped: what could not be tried, and why.
        notes: what else to tell.
    """

    part: str
    tried: int = 0
    lost: int = 0
    seconds: float = 0.0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def survived(self) -> int:
        """Number of cases without a fault."""
        return self.tried - self.lost

    def add(self, faults: Sequence[Fault], *, seconds: float = 0.0, held: int = 0) -> None:
        """Count one case, which failed if there are `faults`; in place."""
        self.tried += 1
        self.lost += bool(faults)
        self.seconds, self.bytes = max(self.seconds, seconds), max(self.bytes, held)
        for fault in faults:
            self._note(fault)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "survived": self.survived}

    def _note(self, fault: Fault) -> None:
        for position, known in enumerate(self.faults):
            if (known.kind, known.where) == (fault.kind, fault.where):
                self.faults[position] = Fault(known.kind, known.where, known.detail, known.repeat, known.times + fault.times)
                return
        self.faults.append(fault)


class Progress:
    """Lines on stderr with the time left, at most one every few seconds."""

    def __init__(self, part: str, total: int, *, every: float = 5.0) -> None:
        self._part, self._total, self._every = part, total, every
        self._began = self._last = time.monotonic()
        self._done = 0

    def step(self, count: int = 1, text: str = "") -> None:
        """Count cases, and say where the part is when it is time."""
        self._done += count
        now = time.monotonic()
        if now - self._last < self._every:
            return
        self._last = now
        left = (now - self._began) / self._done * (self._total - self._done)
        sys.stderr.write(f"{self._part} {self._done}/{self._total}, {left:.0f} s left{': ' if text else ''}{text}\n")


def machine() -> dict[str, Any]:
    """What the figures depend on: load, cores and versions."""
    found: dict[str, Any] = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    found["load"] = [round(value, 2) for value in os.getloadavg()]
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def lines_of(rows: Sequence[Row], state: dict[str, Any]) -> list[str]:
    """The table, then every fault, what was skipped, and the machine."""
    head = f"{'part':<13}{'tried':>9}{'survived':>10}{'lost':>7}{'worst s':>9}{'worst MB':>10}"
    lines = [head, *(_line(row) for row in rows), _line(_total(rows))]
    for row in rows:
        for fault in row.faults:
            lines.append(f"fault   {row.part}: {fault.kind} ({fault.times} times) in {fault.where}: {shortened(fault.detail)}")
            lines.append(f"        again: {fault.repeat}")
    lines += [f"skipped {row.part}: {reason}" for row in rows for reason in row.skipped]
    lines += [f"note    {row.part}: {note}" for row in rows for note in row.notes]
    return [*lines, "machine " + ", ".join(f"{name} {value}" for name, value in state.items())]


def shortened(text: str, most: int = _SHOWN) -> str:
    """`text` on one line, without control characters, cut where it is long."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= most else f"{line[:most]}… ({len(line)} characters)"


def _line(row: Row) -> str:
    return f"{row.part:<13}{row.tried:>9}{row.survived:>10}{row.lost:>7}{row.seconds:>9.2f}{row.bytes / 1e6:>10.0f}"


def _total(rows: Sequence[Row]) -> Row:
    seconds, held = max((row.seconds for row in rows), default=0.0), max((row.bytes for row in rows), default=0)
    return Row("all", sum(row.tried for row in rows), sum(row.lost for row in rows), seconds, held)
