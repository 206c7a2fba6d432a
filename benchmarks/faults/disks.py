"""Disks that are full, over quota or read-only, journals that were torn, and outputs that must not be replaced."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.faults import torn, world
from benchmarks.faults.context import Context, exit_faults
from benchmarks.faults.forks import Ended, Task, run_all, run_one
from benchmarks.faults.hooks import ERRORS, Fate, Hook
from benchmarks.faults.kills import COMMANDS, Command, Reference, undisturbed
from benchmarks.faults.normal import differences, files_in
from benchmarks.faults.report import Fault, Row

PART = "disks"
_SECONDS = 60.0
_SHORT = ("apply shards",)
_SIZES = (8, 24, 48, 96)  # kilobytes that are left on a small disk
_ENOUGH = "64m"


def run(context: Context) -> Row:
    """All disks, for each command; then torn journals and outputs."""
    row = Row(PART)
    commands = [command for command in COMMANDS if not context.short or command.name in _SHORT]
    share = max(3, context.number(full=210, short=9) // len(commands))
    progress = context.progress(PART, share * len(commands))
    for command in commands:
        reference = undisturbed(context, command, row, PART)
        if reference is not None:
            for faults, ended in _errors(context, command, reference, share):
                row.add(faults, seconds=ended.seconds, held=ended.bytes)
                progress.step(text=command.name)
            _real(context, command, reference, row)
    torn.add_torn(context, row)
    _outputs(context, row)
    return row


def _errors(context: Context, command: Command, reference: Reference, count: int) -> Iterator[tuple[list[Fault], Ended]]:
    """Writes, renames and syncs that fail from some event on."""
    generator = random.Random(f"{context.seed} {command.name} disk")
    places = sorted(generator.sample(range(len(reference.events)), min(count // len(ERRORS), len(reference.events))))
    for number in places:
        for mode in ERRORS:
            name = f"{command.name}, {mode} from event {number} of {len(reference.events)} on"
            if context.wanted(name):
                folder = context.fresh(name, command.files)
                first = run_one(partial(_hooked, command.line, Fate(mode, number)), folder, seconds=_SECONDS)
                yield _judge(context, command, name, reference, folder, first), first


def _hooked(line: str, fate: Fate) -> int:
    Hook(Path.cwd(), fate).install()
    return world.mpq(line)


def _judge(context: Context, command: Command, name: str, reference: Reference, folder: Path, first: Ended) -> list[Fault]:
    """Refused in one line, nothing half-written, and the same command ends well on a whole disk."""
    repeat, where = context.repeat(PART, name), f"{command.name}, a failing disk"
    faults = exit_faults(first, where, repeat, codes=(0, 3))
    partial_files = [path.name for path in folder.rglob("*") if ".partial" in path.name or ".trial" in path.name]
    faults += [Fault("left a file behind", where, name_, repeat) for name_ in partial_files]
    again = run_one(partial(world.mpq, command.line), folder, seconds=_SECONDS)
    later = exit_faults(again, f"{command.name}, again on a whole disk", repeat, codes=(0,))
    if not faults and not later:
        wrong = differences(reference.files, files_in(folder))
        later = [Fault(kind, f"{command.name}, again on a whole disk", file, repeat) for kind, file in wrong]
    return faults + later


def _real(context: Context, command: Command, reference: Reference, row: Row) -> None:
    """Disks of a few kilobytes, and a read-only one, where this user may mount."""
    for size in _SIZES[:: 3 if context.short else 1]:
        name = f"{command.name}, a disk with {size} kB left"
        if context.wanted(name):
            _mounted_case(context, command, reference, row, name, size)
    name = f"{command.name}, a read-only disk"
    if context.wanted(name):
        _mounted_case(context, command, reference, row, name, None)


def _mounted_case(context: Context, command: Command, reference: Reference, row: Row, name: str, size: int | None) -> None:
    place = context.place(name)
    with _tmpfs(place) as reason:
        if reason:
            row.skipped.append(f"{name}: {reason}")
            return
        folder = context.world.copy(place / "work", command.files)
        if size is None:
            _remount(place, "ro")
        else:
            taken = sum(-(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*") if path.is_file())
            _remount(place, f"size={taken + 8 + size}k")
        first = run_one(partial(world.mpq, command.line), folder, seconds=_SECONDS)
        _remount(place, f"rw,size={_ENOUGH}")
        row.add(_judge(context, command, name, reference, folder, first), seconds=first.seconds, held=first.bytes)


@contextmanager
def _tmpfs(place: Path) -> Iterator[str]:
    """A disk in memory at `place`; why not, if it cannot be mounted. It is unmounted at the end."""
    place.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_ENOUGH}", "tmpfs", str(place)], capture_output=True, text=True)
    if done.returncode:
        yield done.stderr.strip() or "mount failed"
        return
    try:
        yield ""
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def _outputs(context: Context, row: Row) -> None:
    """An output that is a link, a pipe, or one of the command's own inputs must be refused, and stay what it is."""
    lines = {
        "search": "search model.sensitivity.jsonl --budget 5bits --trials 0 -o {0}",
        "apply": "apply plan.yaml -o {0}",
        "export": "export model.mpq.safetensors --to pt2 -o {0}",
        "export text": "export plan.yaml --to gptqmodel -o {0} --nearest",
        "report": "report plan.yaml -o {0}",
        "check": "check plan.yaml --budget 9bits --junit {0}",
        "analyze": "analyze model.pt2 --calib calibration.pt --quantizer rtn -o {0}",
    }
    inputs = ("model.sensitivity.jsonl", "plan.yaml", "model.mpq.safetensors", "plan.yaml", "plan.yaml", "plan.yaml", "model.pt2")
    tasks = []
    for (command, line), own in zip(lines.items(), inputs, strict=True):
        for target in ("link", "pipe", own) if not context.short else ("link", own):
            name = f"{command} to {target if target != own else 'its own input'}"
            if context.wanted(name) and (not context.short or command == "search"):
                folder = context.fresh(name, None)
                (folder / "precious.txt").write_text("precious\n")
                tasks.append(Task(partial(_to_output, line, target), folder, 20.0, label=name))
    for ended in run_all(tasks, jobs=context.jobs):
        name, repeat = ended.task.label, context.repeat(PART, ended.task.label)
        faults = exit_faults(ended, f"output, {name}", repeat, codes=(2, 3))
        if not faults and ended.value in (2, 3) and (ended.task.folder / "precious.txt").read_text() != "precious\n":
            faults = [Fault("replaced a file through a link", name, "precious.txt", repeat)]
        row.add(faults, seconds=ended.seconds, held=ended.bytes)


def _to_output(line: str, target: str) -> int:
    """The exit code; 1 more than 100 if what stood at the output is another thing afterwards."""
    path = Path(target)
    if target == "link":
        path.symlink_to("precious.txt")
    elif target == "pipe":
        os.mkfifo(path)
    before = path.lstat().st_mode, path.lstat().st_ino, path.read_bytes() if path.is_file() else b""
    code = world.mpq(line.format(target))
    after = path.lstat().st_mode, path.lstat().st_ino, path.read_bytes() if path.is_file() else b""
    return code if before == after else 100 + code
