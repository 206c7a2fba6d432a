"""Mutations: every reader is given thousands of damaged files. It may refuse them in one line, and nothing else.

A child reads a batch; it notes each case before it begins, so that the parent knows where it died and goes on after that.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults.context import Context
from benchmarks.faults.forks import SECONDS, Ended, Failure, Task, run_all
from benchmarks.faults.readers import READERS, Reader
from benchmarks.faults.report import Fault, Progress, Row
from benchmarks.faults.watched import watched

PART = "mutations"
_BATCH = 200
_START = 120.0  # seconds that a batch may take beside its cases


@dataclass
class Batch:
    """Some cases of one reader, and the file in which their results stand."""

    reader: Reader
    numbers: list[int]
    notes: Path


def run(context: Context) -> Row:
    """All readers, so many cases of each."""
    row = Row(PART)
    count = context.number(full=20_000, short=8)
    chosen = _chosen(context)
    progress = context.progress(PART, sum(len(numbers) for numbers in (_numbers(context, count) for _ in chosen)))
    for reader in chosen:
        before = row.tried, row.lost
        waiting = list(_batches(context, reader, _numbers(context, count)))
        while waiting:
            tasks = [Task(partial(_read, context, batch), batch.notes.parent, _START + SECONDS * _BATCH, label=batch) for batch in waiting]
            waiting = []
            for ended in run_all(tasks, jobs=context.jobs):
                waiting += _collect(context, ended, row, progress)
        row.notes.append(f"{reader.name}: {row.tried - before[0]} tried, {row.lost - before[1]} lost")
        sys.stderr.write(f"{row.notes[-1]}\n")
    return row


def _chosen(context: Context) -> list[Reader]:
    """The readers that `--case` names ("plan", "plan,index" or "plan/17"), or all."""
    names = (context.case or "").partition("/")[0].split(",")
    return [reader for reader in READERS.values() if names == [""] or reader.name in names]


def _numbers(context: Context, count: int) -> list[int]:
    number = (context.case or "").partition("/")[2]
    return [int(number)] if number else list(range(count))


def _batches(context: Context, reader: Reader, numbers: list[int]) -> Iterator[Batch]:
    for start in range(0, len(numbers), _BATCH):
        folder = context.fresh(f"{reader.name} {start}")
        yield Batch(reader, numbers[start : start + _BATCH], folder / "notes")


def _read(context: Context, batch: Batch) -> None:
    """In the child: every case of a batch, each noted before and after."""
    import torch

    torch.set_num_threads(1)
    notes = os.open(batch.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    work = Path("work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    batch.reader.prepare(context.world, work)
    os.chdir(work)
    for number in batch.numbers:
        place, content = mutated(context, batch.reader, number)
        _note(notes, {"begin": number})
        path = Path(place)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        found = watched(partial(batch.reader.read, path), seconds=SECONDS)
        failure = None if found.failure is None else asdict(found.failure)
        _note(notes, {"end": number, "seconds": found.seconds, "bytes": found.bytes, "failure": failure})


def mutated(context: Context, reader: Reader, number: int) -> tuple[str, bytes]:
    """Where the file of a case goes, and what it holds: the same for the same seed."""
    generator = random.Random(f"{context.seed} {reader.name} {number}")
    return reader.mutated(context.world, "", generator)


def _note(file: int, record: dict[str, Any]) -> None:
    os.write(file, json.dumps(record).encode() + b"\n")


def _collect(context: Context, ended: Ended, row: Row, progress: Progress) -> list[Batch]:
    """Count what a batch did; what is left of it, if it died."""
    batch: Batch = ended.task.label
    records = [json.loads(line) for line in batch.notes.read_bytes().splitlines()] if batch.notes.exists() else []
    batch.notes.unlink(missing_ok=True)
    done = {record["end"]: record for record in records if "end" in record}
    for number, record in done.items():
        failure = None if record["failure"] is None else Failure(**record["failure"])
        row.add(_faults(context, batch.reader, number, failure), seconds=record["seconds"], held=record["bytes"])
    begun = [record["begin"] for record in records if "begin" in record]
    died = begun[-1] if begun and begun[-1] not in done else None
    progress.step(len(done) + (died is not None), batch.reader.name)
    if ended.failure is None and not ended.signal and not ended.timed_out:
        return []
    if died is None and not done:
        row.add(
            [
                Fault(
                    "cannot be attacked",
                    batch.reader.name,
                    (ended.failure or ended).__repr__()[:2000],
                    context.repeat(PART, batch.reader.name),
                )
            ]
        )
        return []
    if died is not None:
        kind = f"took more than {SECONDS:g} s" if ended.timed_out else f"killed by signal {ended.signal}"
        failure = Failure(kind, "the reader", ended.out[-300:], "")
        row.add(_faults(context, batch.reader, died, failure), seconds=SECONDS if ended.timed_out else 0.0)
    rest = [number for number in batch.numbers if number not in done and number != died]
    return [Batch(batch.reader, rest, batch.notes)] if rest else []


def _faults(context: Context, reader: Reader, number: int, failure: Failure | None) -> list[Fault]:
    if failure is None:
        return []
    repeat = context.repeat(PART, f"{reader.name}/{number}")
    if context.case is not None:
        print(failure.trace)
    return [Fault(failure.type, f"{reader.name}, {failure.where}", failure.text, repeat)]
