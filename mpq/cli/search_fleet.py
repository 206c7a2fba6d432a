"""What `mpq search --status` prints: the processes of a storage, and how far its studies are."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mpq.cli.console import figure, print_json, print_lines, print_table
from mpq.errors import UsageError
from mpq.shown import bits_text, duration, shown_bare

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from mpq.search.fleet import StudyState, Worker

_JOURNAL = ".study.journal"
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///([^?:]+)")


def print_fleet(place: str, *, json: bool) -> None:
    """Show all studies of a storage.

    Args:
        place: URL of the storage, or path of a journal.
        json: print a JSON document.

    Raises:
        UsageError: if it cannot be opened, or holds no study.
    """
    from mpq.search.fleet import fleet
    from mpq.search.storage import storage_failures

    with storage_failures():
        states = fleet(_opened(place))
    if json:
        print_json([state.to_dict() for state in states])
        return
    for state in states:
        _print(state)


def _opened(place: str) -> BaseStorage:
    from mpq.search.storage import journal_beside, open_storage

    if "://" in place:
        file = _SQLITE.match(place)
        if file and not Path(file[1]).exists():  # which SQLite would make
            raise UsageError(
                f"--status {shown_bare(place)}: there is no file {shown_bare(file[1])}; begin a study with mpq search --storage"
            )
        return open_storage(place, beside=Path())
    path = Path(place)
    if not path.name.endswith(_JOURNAL) or not path.is_file():
        raise UsageError(f"--status {place} is neither the URL of a storage nor a {_JOURNAL} that is there")
    return journal_beside(path.with_name(path.name.removesuffix(_JOURNAL) + ".sensitivity.jsonl"))


def _print(state: StudyState) -> None:
    print_table(
        ["worker", "plans measured", "now", "last seen"],
        [[worker.name, str(worker.finished), _now(worker), _ago(worker.seconds)] for worker in state.workers],
        title=" ".join([f"study {state.name}", *(f"({key} {value})" for key, value in state.facts.items() if key == "model")]),
        left=("now",),
    )
    best = (
        ""
        if state.best is None
        else f"; lowest error {figure(state.best)}" + ("" if state.bits is None else f" at {bits_text(state.bits)} bits per weight")
    )
    counts = f"{state.measured} plans measured, {state.given_up} given up early, {state.running} at work"
    others = "".join(
        f", {count} {words}" for count, words in ((state.failed, "interrupted"), (state.lost, "left by killed processes")) if count
    )
    print_lines([f"{counts}{others}{best}"])


def _now(worker: Worker) -> str:
    return f"measures: {worker.stage}" if worker.stage else "was killed" if worker.lost else "-"


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago" if math.isfinite(seconds) else "-"
