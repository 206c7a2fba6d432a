"""Journals that end in the middle of a line, or hold a flipped byte: what is whole is kept, and damage is seen."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults import readers, world
from benchmarks.faults.context import Context, exit_faults
from benchmarks.faults.forks import run_one
from benchmarks.faults.normal import comparable
from benchmarks.faults.report import Fault, Row
from benchmarks.faults.watched import watched

PART = "disks"
_LINES = 3
_SECONDS = 600.0
Content = list[Any]


def add_torn(context: Context, row: Row) -> None:
    """Cut both journals at every byte of their last lines, flip bytes in their middles, and run some of the torn ones again."""
    kinds: dict[str, Callable[[Path], Content]] = {"model.sensitivity.jsonl": _figures, "model.study.journal": _trials}
    for name, read in kinds.items():
        if context.wanted(f"torn {name}"):
            ended = run_one(partial(_all, context, name, read), context.fresh(f"torn {name}", None), seconds=_SECONDS)
            for faults in ended.value or [exit_faults(ended, f"torn {name}", context.repeat(PART, f"torn {name}"))]:
                row.add(faults)
    _again(context, row)


def _all(context: Context, name: str, read: Callable[[Path], Content]) -> list[list[Fault]]:
    """In a child: every cut and every flip of one journal."""
    path, repeat = Path("torn") / name, context.repeat(PART, f"torn {name}")
    path.parent.mkdir()
    for other in ("model.sensitivity.jsonl", "model.pt2", "calibration.pt"):
        shutil.copy(other, path.parent)
    whole = Path(name).read_bytes()
    expected = _read(path, whole, read)
    last = whole.rstrip(b"\n").split(b"\n")[-_LINES:]
    begin = len(whole) - sum(len(line) + 1 for line in last)
    found = []
    for cut in range(begin, len(whole), 29 if context.short else 1):
        found.append(_fault(f"torn {name}", f"cut at {cut} of {len(whole)}", expected, _read(path, whole[:cut], read), repeat, prefix=True))
    generator = random.Random(f"{context.seed} flip {name}")
    for _ in range(40 if context.short else 1000):
        place, bit = generator.randrange(whole.index(b"\n"), begin), generator.randrange(8)
        flipped = whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :]
        found.append(_fault(f"damaged {name}", f"bit {bit} of byte {place}", expected, _read(path, flipped, read), repeat, prefix=False))
    return found


def _read(path: Path, content: bytes, read: Callable[[Path], Content]) -> tuple[Content | None, str]:
    """What a reader makes of it: None with "" where it is refused, None with the failure where it fails."""
    path.write_bytes(content)
    kept: list[Content] = []
    found = watched(lambda: kept.append(read(path)))
    if found.failure is not None:
        return None, f"{found.failure.type} in {found.failure.where}: {found.failure.text}"
    return (kept[0] if kept else None), ""


def _fault(
    where: str, how: str, expected: tuple[Content | None, str], found: tuple[Content | None, str], repeat: str, *, prefix: bool
) -> list[Fault]:
    content, failure = found
    whole = expected[0] or []
    if failure:
        return [
            Fault(failure.partition(" in ")[0], f"{where}, {failure.partition(' in ')[2].partition(': ')[0]}", f"{how}: {failure}", repeat)
        ]
    if content is None:
        return [Fault("a torn journal is refused", where, how, repeat)] if prefix else []
    wrong = [item for item in content if item not in whole]
    if wrong:
        return [Fault("damage is not noticed", where, f"{how}: {str(wrong[0])[:150]}", repeat)]
    return []


def _figures(path: Path) -> Content:
    """Every figure that a table holds, with its sample."""
    from mpq.records.sensitivity import read_sensitivity

    table = read_sensitivity(path)
    return [(*map(str, key), number, value) for key, errors in table.errors.items() for number, value in enumerate(errors.tolist())]


def _trials(path: Path) -> Content:
    """Every finished trial."""
    storage = readers.storage_beside(path.parent / "model.sensitivity.jsonl")
    return [trial for trial in readers.trials_in(storage) if trial["state"] in ("COMPLETE", "PRUNED")]


def _again(context: Context, row: Row) -> None:
    """The commands whose journals were torn go on, and end in the plan of an untouched run."""
    generator = random.Random(f"{context.seed} again")
    for name, line, result in (
        ("model.sensitivity.jsonl", world.MEASURE, "model.sensitivity.jsonl"),
        ("model.study.journal", world.SEARCH, "plan.yaml"),
    ):
        for _ in range(1 if context.short else 12):
            files = ("model.pt2", "calibration.pt", "model.sensitivity.jsonl", "model.study.journal")
            folder = context.fresh(f"again {name}", files)
            whole = (folder / name).read_bytes()
            cut = generator.randrange(whole.index(b"\n") + 1, len(whole))
            case = f"again {name} cut at {cut}"
            if not context.wanted(case):
                continue
            (folder / name).write_bytes(whole[:cut])
            repeat = context.repeat(PART, case)
            ended = run_one(partial(world.mpq, line), folder, seconds=60.0)
            faults = exit_faults(ended, f"run again with a torn {name}", repeat, codes=(0,))
            if not faults and comparable(folder / result) != comparable(context.world.path(result)):
                faults = [Fault("other bytes", f"run again with a torn {name}", case, repeat)]
            row.add(faults, seconds=ended.seconds, held=ended.bytes)
