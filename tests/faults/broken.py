"""Every detector of `benchmarks.faults` on something that is broken on purpose; prints the kinds of faults that each part finds.

It runs in a process of its own, because the harness forks, and because mpq is replaced here by what is broken.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.faults import bombs, determinism, disks, hostile, kills, mutations, numbers, readers, torn, versions, workers, world
from benchmarks.faults.context import Context
from benchmarks.faults.hostile_case import Case
from benchmarks.faults.readers import Reader
from benchmarks.faults.report import Row
from benchmarks.faults.tables import table_of
from benchmarks.faults.world import World

Found = list[str]


def raises(path: Path) -> int:
    raise ValueError("raised on purpose")


def hangs(path: Path) -> int:
    time.sleep(60)
    return 0


def crashes(path: Path) -> int:
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def eats(path: Path) -> int:
    return len([np.empty(1 << 27, dtype=np.uint8) for _ in range(12)]) * 0


def gives_up(path: Path) -> int:
    from mpq.errors import FormatError

    try:
        return eats(path)
    except MemoryError as error:
        raise FormatError("refused too late") from error


def colors(path: Path) -> int:
    sys.stdout.write("\x1b[31mred\x1b[0m\n")
    return 0


def annotates(path: Path) -> int:
    sys.stdout.write("::error::forged\n")
    return 0


def chatters(path: Path) -> int:
    sys.stderr.write("mpq: " + "x" * 5000 + "\n")
    return 3


def says_no(path: Path) -> int:
    return 1


def refuses(path: Path) -> int:
    from mpq.errors import FormatError

    raise FormatError("as it should be")


BROKEN = (raises, hangs, crashes, eats, gives_up, colors, annotates, chatters, says_no, refuses)


def read_badly(context: Context) -> dict[str, Found]:
    """Each broken reader, by what mutations find with it."""
    found = {}
    for read in BROKEN:
        replace(mutations, "SECONDS", 0.5 if read is hangs else 20.0)
        reader = Reader(read.__name__, ("text",), read)
        replace(mutations, "READERS", {reader.name: reader})
        found[f"reader {read.__name__}"] = kinds(mutations.run(context))
    return found


def writes_badly(line: str) -> int:
    """A command that appends to its output, in two writes, and leaves a file behind."""
    Path(f".out.{os.getpid()}.partial").touch()
    with Path("out").open("ab", buffering=0) as file:
        file.write(b"one ")
        file.write(b"two ")
    return 0


def swallows(line: str) -> int:
    """A command that says nothing of a full disk, and whose file stays half-written."""
    try:
        with Path("out").open("ab", buffering=0) as file:
            file.write(b"all of it")
    except OSError:
        return 1
    return 0


def obeys(line: str) -> int:
    """A command that runs what a file holds."""
    import torch

    torch.load("evil.pt", weights_only=False)
    return 0


def rolls(line: str) -> int:
    """A command whose output is never the same."""
    Path("out").write_bytes(random.SystemRandom().randbytes(8))
    return 0


def replaces(line: str) -> int:
    """A command that writes wherever it is told to."""
    target = Path(line.rpartition(" -o ")[2] or line.rpartition(" --junit ")[2])
    if not target.is_fifo():
        target.write_text("replaced")
    return 0


def kinds(row: Row) -> Found:
    """The kinds of faults of a row."""
    return sorted({fault.kind for fault in row.faults})


def with_command(command: Callable[[str], int], run: Callable[[], Row]) -> Found:
    """The faults of a part where mpq is this command."""
    world.mpq = command  # type: ignore[assignment]
    return kinds(run())


def killed(context: Context) -> Row:
    """Kills of the broken command alone."""
    row, command = Row("kills"), kills.Command("broken", "broken", ("text",))
    reference = kills.undisturbed(context, command, row, "kills")
    assert reference is not None
    cases = list(kills.kills(command, reference, 12, 0))
    for _, faults, _ in kills._killed(context, command, reference, cases):
        row.add(faults)
    return row


def full(context: Context) -> Row:
    """Failing disks under the broken command alone."""
    row, command = Row("disks"), kills.Command("broken", "broken", ("text",))
    reference = kills.undisturbed(context, command, row, "disks")
    assert reference is not None
    for faults, _ in disks._errors(context, command, reference, 9):
        row.add(faults)
    return row


def torn_badly(context: Context) -> Found:
    """A reader of journals that takes what it finds."""
    whole: tuple[Any, str] = ([1, 2], "")
    cases = [([1, 3], ""), (None, ""), (None, "KeyError in mpq/x.py: 'x'"), ([1], "")]
    return sorted({f.kind for case in cases for f in torn._fault("journal", "cut", whole, case, "", prefix=True)})


def outputs(context: Context) -> Row:
    row = Row("disks")
    disks._outputs(context, row)
    return row


def hostile_row(context: Context) -> Row:
    case = next(hostile._pickles())
    hostile._cases = lambda: iter([Case(case.name, case.make, ("show evil.pt",)), Case("harmless", lambda _: None, ("trusted:x",), True)])
    replace(hostile, "built_cases", lambda: iter(()))
    replace(hostile, "_SHORT", (case.name, "harmless"))
    return hostile.run(context)


def analyses(context: Context) -> Row:
    row = Row("workers")
    row.add(workers._two_analyses(context, "two analyses 0"))
    return row


def exploded(context: Context) -> Row:
    replace(bombs, "READERS", {"eats": Reader("eats", ("text",), eats)})
    replace(bombs, "_SHORT", ("eats",))
    bombs._bombs = lambda: iter([bombs.Bomb("eats", "eats", "b", lambda path: path.write_text("x"))])
    return bombs.run(context)


def wrong_choice() -> Found:
    figures = {name: {"int2": 1.0, "int4": 0.1, "int8": 0.01} for name in ("a", "b")}
    wrong = {"a": "int2", "b": "int2"}, {"a": "int8", "b": "int8"}
    return sorted({kind for chosen in wrong for kind, _ in numbers._choice(table_of(figures), figures, "6bits", chosen)})


def old(context: Context, folder: Path) -> Found:
    kept = folder / "v0"
    kept.mkdir()
    (kept / "expected.json").write_text(json.dumps({"plan": {"layers": {}}, "study": []}))
    versions.FIXTURES = folder
    versions.READ = {"plan": lambda: {"layers": {"0": "int4"}}, "study": lambda: raises(folder)}
    replace(versions, "_LINES", ())
    return kinds(versions.run(context))


def lost(folder: Path) -> Found:
    """A study that lost a plan, counted one twice, and measured one twice."""
    plans = [{"a": "int4"}, {"a": "int8"}]
    trials: list[dict[str, Any]] = [{"number": n, "state": "COMPLETE", "facts": {"plan": plans[0]}} for n in range(2)]
    readers.storage_beside = lambda *_: None
    readers.trials_in = lambda storage: trials
    known = workers._hashed(trials[0])
    (folder / "measured").write_text("".join(f"1 end {plan}\n" for plan in (known, known, "x", "y", "z")))
    return sorted({kind for kind, _, _ in workers._counted(folder, None)})


def replace(module: ModuleType, name: str, value: object) -> None:
    """Put something else in the place of a module's own."""
    setattr(module, name, value)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small = folder / "world"
        (small / "shards").mkdir(parents=True)
        for name in ("text", "precious.txt", *world_files()):
            (small / name).write_text("some text\n")
        (folder / "scratch").mkdir()
        context = Context(World(small), folder / "scratch", count=2, short=True, jobs=4)
        found: dict[str, Found] = read_badly(context)
        found["kills"] = with_command(writes_badly, lambda: killed(context))
        found["disks"] = with_command(swallows, lambda: full(context))
        found["outputs"] = with_command(replaces, lambda: outputs(context))
        found["torn"] = torn_badly(context)
        found["hostile"] = with_command(obeys, lambda: hostile_row(context))
        found["workers"] = with_command(rolls, lambda: analyses(context))
        found["determinism"] = with_command(rolls, lambda: determinism.run(context))
        found["bombs"], found["numbers"] = kinds(exploded(context)), wrong_choice()
        found["versions"], found["studies"] = old(context, folder), lost(folder)
    sys.stdout.write(json.dumps(found))


def world_files() -> tuple[str, ...]:
    return ("model.pt2", "calibration.pt", "model.sensitivity.jsonl", "plan.yaml", "model.mpq.safetensors")


if __name__ == "__main__":
    main()
