"""Measures the time and memory of loading a model. Run it in a process that has loaded no other model."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Loading:
    """The cost of one load.

    Args:
        seconds: it took.
        own_bytes: growth of the process's private memory; None where the system does not report it.
        resident_bytes: the same, including mapped files, such as code and weights.
        peak_bytes: the most it held while loading, counted like `resident_bytes`.
    """

    seconds: float
    own_bytes: int | None
    resident_bytes: int | None
    peak_bytes: int | None


def measured(load: Callable[[], nn.Module]) -> Loading:
    """Call `load`, keep its result alive, and measure the cost."""
    gc.collect()
    own, resident = _status("RssAnon"), _status("VmRSS")
    start = time.perf_counter()
    module = load()
    seconds = time.perf_counter() - start
    gc.collect()
    found = _more(own, _status("RssAnon")), _more(resident, _status("VmRSS")), _more(resident, _status("VmHWM"))
    del module
    return Loading(seconds, *found)


def _status(name: str) -> int | None:
    """A value from this process's status, in bytes."""
    if not _STATUS.exists():
        return None
    found = [line.split() for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(found[0][1]) * 1024 if found else None


def _more(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)
