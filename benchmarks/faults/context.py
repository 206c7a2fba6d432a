"""What every part is given, and how a child's end becomes a fault."""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.forks import Ended
from benchmarks.faults.report import Fault, Progress
from benchmarks.faults.world import World

_ODD = re.compile(r"[^\w.]+", re.ASCII)


@dataclass(frozen=True)
class Context:
    """How a part is run.

    Args:
        world: the files to attack.
        scratch: a folder of its own.
        seed: of everything random.
        count: number of cases (for mutations, of each reader); None for the part's own.
        short: only what takes a few seconds.
        jobs: children at once.
        case: only the cases whose names hold this text.
    """

    world: World
    scratch: Path
    seed: int = 0
    count: int | None = None
    short: bool = False
    jobs: int = 1
    case: str | None = None

    def number(self, *, full: int, short: int) -> int:
        """The number of cases."""
        return self.count if self.count is not None else short if self.short else full

    def wanted(self, name: str) -> bool:
        """Whether a case is to be run."""
        return self.case is None or self.case in name

    def repeat(self, part: str, name: str) -> str:
        """The options that run one case again."""
        return f"--only {part} --case '{name}' --seed {self.seed}" + (" --short" if self.short else "")

    def fresh(self, name: str, files: Sequence[str] | None = ()) -> Path:
        """A new folder with these files of the world; None copies all."""
        folder = self.place(name)
        shutil.rmtree(folder, ignore_errors=True)
        return self.world.copy(folder, files)

    def place(self, name: str) -> Path:
        """A path of its own in the scratch folder, for a case of this name."""
        return self.scratch / f"{_ODD.sub('_', name)[:60]}-{zlib.crc32(name.encode()):08x}"

    def progress(self, part: str, total: int) -> Progress:
        """Progress on stderr."""
        return Progress(part, total)


def faults_of(ended: Ended, what: str, repeat: str) -> list[Fault]:
    """A crash, a timeout, or an exception outside MpqError."""
    if ended.timed_out:
        return [Fault("timeout", what, f"ended after {ended.seconds:.1f} s; {ended.out[-300:]}", repeat)]
    if ended.signal:
        return [Fault(f"killed by signal {ended.signal}", what, ended.out[-300:], repeat)]
    if ended.failure is not None:
        return [Fault(ended.failure.type, f"{what}, {ended.failure.where}", ended.failure.text, repeat)]
    return []


def exit_faults(ended: Ended, what: str, repeat: str, *, codes: Sequence[int] = (0, 2, 3)) -> list[Fault]:
    """The same, and an exit code that is not among `codes`."""
    faults = faults_of(ended, what, repeat)
    if faults:
        return faults
    if ended.value not in codes:
        return [Fault(f"exit code {ended.value}", what, ended.out[-300:], repeat)]
    return []
