"""Kills: every command is killed at writes, renames and syncs, and at random moments, and then run again.

The second run must end well, with the bytes of a run that nobody disturbed, and no other file.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.faults import world
from benchmarks.faults.context import Context, exit_faults
from benchmarks.faults.forks import Ended, Task, run_all, run_one
from benchmarks.faults.hooks import MODES, Fate, Hook
from benchmarks.faults.normal import differences, files_in
from benchmarks.faults.report import Fault, Row

PART = "kills"
_SECONDS = 60.0
_MODEL, _TINY = ("model.pt2", "calibration.pt"), ("tiny", "tokens.pt")
_RANDOM = 0.3  # share of the kills at random moments
_VARYING = re.compile(r"[\da-f]{8}-[\da-f-]+|\d+")


@dataclass(frozen=True)
class Command:
    """A command to kill, and the files of the world that it reads."""

    name: str
    line: str
    files: tuple[str, ...]


COMMANDS = (
    Command("analyze measure", world.MEASURE, _MODEL),
    Command("analyze fisher", world.FISHER, _MODEL),
    Command("search", world.SEARCH, (*_MODEL, "model.sensitivity.jsonl")),
    Command("apply", world.APPLY, (*_MODEL, "plan.yaml")),
    Command("apply shards", world.SHARDS, (*_TINY, "tiny.plan.yaml")),
    Command("recover", world.RECOVER, ("model.pt2", "samples.pt", "training.pt", "coarse.plan.yaml", "coarse.mpq.safetensors")),
    Command("export", world.EXPORT, (*_MODEL, "model.mpq.safetensors")),
    Command("export folder", world.FOLDER, (*_TINY, "tiny.mpq.safetensors")),
)
_SHORT = ("analyze fisher", "apply shards", "recover")


@dataclass(frozen=True)
class Reference:
    """A run that nobody disturbed: its files, the events in order, and its seconds."""

    files: dict[str, bytes]
    events: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Kill:
    """One case: a fate at an event, or a moment."""

    name: str
    fate: Fate
    moment: float | None = None


def run(context: Context) -> Row:
    """All kills of all commands."""
    row = Row(PART)
    commands = [command for command in COMMANDS if not context.short or command.name in _SHORT]
    share = max(1, context.number(full=200, short=6) // len(commands))
    progress = context.progress(PART, share * len(commands))
    for command in commands:
        reference = undisturbed(context, command, row, PART)
        if reference is None:
            continue
        cases = [kill for kill in kills(command, reference, share, context.seed) if context.wanted(kill.name)]
        for kill, faults, ended in _killed(context, command, reference, cases):
            row.add(faults, seconds=ended.seconds, held=ended.bytes)
            progress.step(text=kill.name)
    return row


def undisturbed(context: Context, command: Command, row: Row, part: str) -> Reference | None:
    """Run a command twice; None, with the fault in `row`, if it fails or the two differ."""
    found: list[Reference] = []
    for turn in range(2):
        folder = context.fresh(f"{command.name} reference {turn}", command.files)
        ended = run_one(partial(_counted, command.line), folder, seconds=_SECONDS)
        if not isinstance(ended.value, tuple) or ended.value[0] != 0:
            reason = ended.failure.trace if ended.failure else ended.out[-300:]
            row.add([Fault("does not run", command.name, reason, context.repeat(part, command.name))])
            return None
        found.append(Reference(files_in(folder), ended.value[1], ended.seconds))
    wrong = differences(found[0].files, found[1].files)
    row.add([Fault(kind, f"{command.name}, two undisturbed runs", name, context.repeat(part, command.name)) for kind, name in wrong])
    return found[0]


def kills(command: Command, reference: Reference, count: int, seed: int) -> Iterator[Kill]:
    """`count` kills of one command: spread over its events in all modes, the rest at random moments."""
    generator = random.Random(f"{seed} {command.name}")
    at_events = [(number, mode) for number, kind in enumerate(reference.events) for mode in MODES if mode != "half" or kind == "write"]
    wanted = min(len(at_events), round(count * (1 - _RANDOM)))
    for number, mode in sorted(generator.sample(at_events, wanted)):
        name = f"{command.name}, {mode} event {number} of {len(reference.events)}, a {reference.events[number]}"
        yield Kill(name, Fate(mode, number))
    for _ in range(count - wanted):
        moment = generator.uniform(0.02, 1.0) * reference.seconds
        yield Kill(f"{command.name}, after {moment:.3f} s", Fate(), moment)


def _killed(context: Context, command: Command, reference: Reference, cases: list[Kill]) -> Iterator[tuple[Kill, list[Fault], Ended]]:
    first = (
        Task(partial(_counted, command.line, kill.fate), _folder(context, command, number), _SECONDS, kill_after=kill.moment, label=kill)
        for number, kill in enumerate(cases)
    )
    folders = {ended.task.label: ended.task.folder for ended in run_all(first, jobs=context.jobs)}
    again = (Task(partial(world.mpq, command.line), folder, _SECONDS, label=kill) for kill, folder in folders.items())
    for ended in run_all(again, jobs=context.jobs):
        kill, repeat = ended.task.label, context.repeat(PART, ended.task.label.name)
        faults = exit_faults(ended, f"{command.name}, run again", repeat, codes=(0,))
        if not faults:
            wrong = differences(reference.files, files_in(ended.task.folder))
            faults = [Fault(kind, f"{command.name}, {_VARYING.sub('N', name)}", name, repeat) for kind, name in wrong]
        yield kill, faults, ended


def _folder(context: Context, command: Command, number: int) -> Path:
    return context.fresh(f"{command.name} {number}", command.files)


def _counted(line: str, fate: Fate | None = None) -> tuple[int, tuple[str, ...]]:
    """Run a command under a hook; its exit code and the events."""
    hook = Hook(Path.cwd(), fate or Fate()).install()
    return world.mpq(line), tuple(hook.log)
