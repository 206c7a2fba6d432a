"""Which process measures a trial, and whether it is still running. No torch.

A trial records its worker: the host and process, which other processes on the same host can check, and the time of its last sign of life,
for processes elsewhere, such as in other containers. So the claim of a killed process on a plan ends immediately on its own host, and
elsewhere after `SILENT` seconds without a sign of life.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from optuna.trial import FrozenTrial

from mpq.writing.locks import runs

SILENT = 120.0  # seconds
_BEAT = 20.0  # seconds
_CHOOSING = 10.0  # seconds after which a trial without a process counts as left by a killed one
_FORGOTTEN = 3600.0  # seconds, for trials of earlier versions, which record no sign of life
_WORKER = "{host}, process {process}"


def signs() -> dict[str, str]:
    """The attributes that identify a trial of this process."""
    worker = _WORKER.format(host=socket.gethostname(), process=os.getpid())
    return {"worker": worker, "worker_mark": _mark(os.getpid()), "worker_seen": _now()}


@contextmanager
def seen(note: Callable[[str, str], None]) -> Iterator[None]:
    """Record from time to time that this process is running."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_BEAT):
            with suppress(Exception):  # if the storage is gone, the main work reports it
                note("worker_seen", _now())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def at_work(trial: FrozenTrial) -> bool:
    """Whether a running trial belongs to another process that may still be running."""
    attributes = trial.user_attrs
    host, _, process = str(attributes.get("worker", "")).partition(", process ")
    if not process:
        return _age(trial) < _CHOOSING
    mark = attributes.get("worker_mark")
    if host == socket.gethostname() and process.isdigit() and os.name == "posix" and _same_system(mark):
        return int(process) != os.getpid() and runs(int(process)) and mark in (None, _mark(int(process)))
    if "worker_seen" in attributes:
        return _since(str(attributes["worker_seen"])) < SILENT
    return _age(trial) < _FORGOTTEN


def silence(trial: FrozenTrial) -> float:
    """Seconds since the process of a running trial was last seen; infinity if it does not say."""
    return _since(str(trial.user_attrs.get("worker_seen", "")))


def _age(trial: FrozenTrial) -> float:
    """Seconds since a trial began."""
    return float("inf") if trial.datetime_start is None else abs((datetime.now() - trial.datetime_start).total_seconds())


def _since(text: str) -> float:
    """Seconds since the time in `text`; infinity if it is not a time."""
    try:
        return abs((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())
    except (ValueError, TypeError):
        return float("inf")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _mark(process: int) -> str:
    """What distinguishes processes with the same number: the container and the start time, if available."""
    try:
        began = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        began = ""
    return f"{_container()} {began}"


def _container() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _same_system(mark: object) -> bool:
    """Whether process numbers of that host are valid here."""
    return mark is None or str(mark).rpartition(" ")[0] == _container()
