"""The same commands again: over repeats, threads and folders, each file has the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.faults import world
from benchmarks.faults.context import Context, faults_of
from benchmarks.faults.forks import run_one
from benchmarks.faults.normal import differences, files_in
from benchmarks.faults.report import Fault, Row

PART = "determinism"
_CHAIN = (world.MEASURE, world.FISHER, world.SEARCH, world.APPLY, world.EXPORT)
_DIGITS = (
    "analyze model.pt2 --calib calibration.pt --num-samples 64",
    "search --budget 4.5bits --trials 8",
    "apply plan.yaml",
    "export model.mpq.safetensors --to pt2",
)


@dataclass(frozen=True)
class Turn:
    """One way to run the chain again."""

    name: str
    threads: int = 1
    below: str = "."


_LONG = "a folder/with ümlauts/and a much longer path than before"
_TURNS = (Turn("first"), Turn("repeat"), Turn("2 threads", 2), Turn("4 threads", 4), Turn("another folder", 1, _LONG))
_SHORT = (Turn("first"), Turn("4 threads in another folder", 4, _LONG))


def run(context: Context) -> Row:
    """The small model; in full also the digits that ship with mpq, which are large enough for several threads."""
    row = Row(PART)
    models = ("small",) if context.short else ("small", "digits")
    turns = _SHORT if context.short else _TURNS
    progress = context.progress(PART, len(models) * len(turns))
    for model in models:
        expected: dict[str, bytes] | None = None
        for turn in turns:
            name = f"{model}, {turn.name}"
            folder = context.fresh(name) / turn.below
            if model == "small":
                (folder.parent if turn.below != "." else folder).mkdir(parents=True, exist_ok=True)
                folder = context.world.copy(folder / "work", ("model.pt2", "calibration.pt"))
            folder.mkdir(parents=True, exist_ok=True)
            ended = run_one(partial(_chain, model, turn.threads), folder, seconds=600.0)
            faults = faults_of(ended, name, context.repeat(PART, name))
            if not faults and ended.value:
                faults = [Fault("a command failed", name, ended.value, context.repeat(PART, name))]
            found = files_in(folder)
            expected = expected or found
            wrong = [] if faults else differences(expected, found)
            faults += [Fault(kind, f"{name}: {file}", file, context.repeat(PART, name)) for kind, file in wrong]
            row.add(faults, seconds=ended.seconds, held=ended.bytes)
            progress.step(text=name)
    return row


def _chain(model: str, threads: int) -> str:
    """Run all commands; the one that failed, or nothing."""
    import torch

    torch.set_num_threads(threads)
    if model == "digits":
        from mpq.demo import write_demo

        write_demo("digits", Path())
    for line in _CHAIN if model == "small" else _DIGITS:
        code = world.mpq(f"--quiet {line}")
        if code:
            return f"mpq {line} gave {code}"
    return ""
