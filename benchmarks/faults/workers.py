"""Several processes at once: two analyses on one output, and many workers of one search of which two are killed."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults import postgres, readers, world
from benchmarks.faults.context import Context, exit_faults, faults_of
from benchmarks.faults.forks import Task, run_all, run_one
from benchmarks.faults.normal import differences, files_in
from benchmarks.faults.report import Fault, Row
from benchmarks.faults.tables import FakeMeasurer, falling_table

PART = "workers"
_SECONDS = 900.0
_WORKERS, _KILLED = 8, 2
_LAYERS = 10
_START = 1.0  # seconds until all have begun


def run(context: Context) -> Row:
    """Analyses, then one search on each kind of storage."""
    row = Row(PART)
    for number in range(1 if context.short else 8):
        name = f"two analyses {number}"
        if context.wanted(name):
            row.add(_two_analyses(context, name))
    count = context.number(full=250, short=16)
    storages = ("journal", "sqlite", "postgresql") if not context.short else ("journal",)
    progress = context.progress(PART, len(storages))
    for kind in storages:
        if context.wanted(kind):
            _search(context, kind, count, row)
        progress.step(text=kind)
    return row


def _two_analyses(context: Context, name: str) -> list[Fault]:
    """Both begin at once; one may be refused, and no figure may be there twice."""
    folder, repeat = context.fresh(name, ("model.pt2", "calibration.pt")), context.repeat(PART, name)
    run = partial(world.mpq, world.MEASURE)
    ended = list(run_all([Task(run, folder, 120.0) for _ in range(2)], jobs=2))
    faults = [fault for one in ended for fault in exit_faults(one, "two analyses", repeat, codes=(0, 3))]
    if not faults and all(one.value for one in ended):
        faults = [Fault("both were refused", "two analyses", ended[0].out[-300:], repeat)]
    expected = {name: content for name, content in files_in(context.world.folder).items() if name == "model.sensitivity.jsonl"}
    found = {name: content for name, content in files_in(folder).items() if name not in ("model.pt2", "calibration.pt")}
    return faults + [Fault(kind, "two analyses", file, repeat) for kind, file in differences(expected, found)]


def _search(context: Context, kind: str, trials: int, row: Row) -> None:
    folder, repeat = context.fresh(f"search {kind}"), context.repeat(PART, kind)
    if kind == "postgresql":
        try:
            with postgres.cluster() as url:
                _judge(context, kind, folder, url, trials, repeat, row)
        except postgres.MissingError as reason:
            row.skipped.append(f"{kind}: {reason}")
        return
    _judge(context, kind, folder, None if kind == "journal" else f"sqlite:///{folder}/study.db", trials, repeat, row)


def _judge(context: Context, kind: str, folder: Path, url: str | None, trials: int, repeat: str, row: Row) -> None:
    generator, begin = random.Random(f"{context.seed} {kind}"), time.time() + _START
    workers = 3 if context.short else _WORKERS
    victims = 1 if context.short else _KILLED
    moments = [_START + generator.uniform(0.3, 2.0) if number < victims else None for number in range(workers)]
    tasks = [Task(partial(_work, folder, url, trials, begin, n), folder, _SECONDS, kill_after=m, label=n) for n, m in enumerate(moments)]
    ended = list(run_all(tasks, jobs=workers))
    seconds, held = max(one.seconds for one in ended), max(one.bytes for one in ended)
    killed = {one.task.label for one in ended if one.task.kill_after is not None and one.signal}
    faults = [fault for one in ended if one.task.label not in killed for fault in faults_of(one, f"a worker on {kind}", repeat)]
    row.add(faults, seconds=seconds, held=held)
    ends = {one.process for one in ended if one.task.label in killed}
    read = run_one(partial(_counted, folder, url, ends), folder, seconds=60.0)
    row.add(faults_of(read, f"the study on {kind}", repeat))
    for what, where, detail in read.value or ():
        row.add([Fault(what, f"{kind}: {where}", detail, repeat)])
    plans = {one.value for one in ended if one.task.label not in killed and one.value}
    row.add([] if plans else [Fault("no plan was written", kind, "", repeat)])
    row.notes.append(f"{kind}: {workers} workers, {len(killed)} killed, {trials} trials, {seconds:.0f} s, {_numbers(folder)}")


def _work(folder: Path, url: str | None, trials: int, begin: float, number: int) -> str:
    """One worker: begins with the others, searches, writes its plan."""
    from mpq.records.plan import write_plan
    from mpq.search.run import search

    table = falling_table(_LAYERS, 5)
    while time.time() < begin:
        time.sleep(0.001)
    storage = readers.storage_beside(folder / "model.sensitivity.jsonl", url)
    measurer = FakeMeasurer(table, log=folder / "measured", seconds=0.02)
    result = search(table, "4.5bits", measurer=measurer, trials=trials, storage=storage)
    write_plan(result.plan, folder / f"plan-{number}.yaml")
    return (folder / f"plan-{number}.yaml").read_text()


def _counted(folder: Path, url: str | None, killed: Collection[int] = ()) -> list[tuple[str, str, str]]:
    """Trials lost, counted twice or measured twice; the plan that a killed worker measured last may be missing, and measured again."""
    trials = readers.trials_in(readers.storage_beside(folder / "model.sensitivity.jsonl", url))
    done = [trial for trial in trials if trial["state"] in ("COMPLETE", "PRUNED")]
    found = []
    fresh = Counter(_plan(trial) for trial in done if "measured before" not in str(trial["facts"].get("note", "")))
    found += [("counted twice", "a plan", f"{plan}: {times} times") for plan, times in fresh.items() if times > 1]
    ended = Counter(_ended(folder, killed))
    found += [("measured twice", "a plan", f"{plan}: {times} times") for plan, times in ended.items() if times > 1]
    hashes = {_hashed(trial) for trial in done}
    found += [("trials lost", "a plan", f"{plan} was measured and is in no trial") for plan in ended if plan not in hashes]
    return found


def _ended(folder: Path, killed: Collection[int]) -> Iterator[str]:
    """The plans that were measured to the end, without what a killed worker did last."""
    lines = [line.split() for line in _log(folder)]
    last = {process: number for number, (process, _, _) in enumerate(lines)}
    for number, (process, what, plan) in enumerate(lines):
        if what == "end" and not (int(process) in killed and last[process] == number):
            yield plan


def _plan(trial: dict[str, Any]) -> str:
    return str(trial["facts"].get("plan"))


def _hashed(trial: dict[str, Any]) -> str:
    plan = " ".join(f"{name}={scheme}" for name, scheme in (trial["facts"].get("plan") or {}).items())
    return hashlib.sha256(plan.encode()).hexdigest()[:16]


def _log(folder: Path) -> Iterator[str]:
    path = folder / "measured"
    return iter(path.read_text().splitlines() if path.exists() else [])


def _numbers(folder: Path) -> str:
    lines = list(_log(folder))
    plans = Counter(line.split()[2] for line in lines if " end " in line)
    return f"{sum(plans.values())} measurements of {len(plans)} plans by {len({line.split()[0] for line in lines})} processes"
