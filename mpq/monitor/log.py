"""Appends what a monitor has seen to a log."""

from __future__ import annotations

import io
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from msgspec import to_builtins

from mpq.errors import OutputError
from mpq.files import Journal, atomic_write
from mpq.monitor.watch import Monitor
from mpq.records.monitor_log import TIME, VERSION, samples_path

_ELSEWHERE = "choose another place for the log"


def append(monitor: Monitor, path: Path | str) -> None:
    """Append everything that `monitor` has seen since the last time to the log at `path`, as one line, and restart its sketches.

    Kept inputs go to NAME.samples.pt next to it, replacing those of the line before.

    Raises:
        OutputError: if it cannot be written.
    """
    kept = monitor.kept.items
    record = {
        "mpq_monitor_log": VERSION,
        "time": time.time(),
        "calls": monitor.calls,
        "sampled": monitor.sampled,
        "tensors": {name: sketch.to_dict() for name, sketch in monitor.sketches.items()},
        "divergence": vars(monitor.divergence),
        "agreement": vars(monitor.agreement),
        **monitor.limits,
        "rows": columns_of(monitor.rows.items),
        "kept": len(kept),
        "kernels": monitor.kernels.by_layer(),
        "fallbacks": to_builtins(monitor.kernels.fallbacks()),
    }
    if kept:
        _write_samples(samples_path(Path(path)), kept)
    _append(Path(path), record)
    monitor.restart()


def _append(path: Path, record: dict[str, Any]) -> None:
    """One line more, after cutting off one that a kill left unfinished; other processes may write to the same log."""
    try:
        path.touch()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; {_ELSEWHERE}") from error
    with closing(Journal(path, full=_ELSEWHERE, shared=True)) as journal:
        journal.append(record)


def columns_of(rows: list[dict[str, float | None]]) -> dict[str, list[float | None]]:
    """Rows as columns, in the order in which they were seen; what a row lacks is None."""
    ordered = sorted(rows, key=lambda row: row.get(TIME) or 0.0)
    names = dict.fromkeys(name for row in ordered for name in row)
    return {name: [row.get(name) for row in ordered] for name in names}


def _write_samples(path: Path, calls: list[Any]) -> None:
    """Inputs of calls, as `mpq analyze --calib` reads them: a list of tuples, or of keyword arguments."""
    buffer = io.BytesIO()
    torch.save(calls, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
