"""How much memory this process has taken."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def held_now() -> int:
    """Bytes that this process has in memory; 0 where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int:
    """The peak memory of this process in bytes, including model and data; 0 if not available on this system."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_text(peak: int, expected: int) -> str:
    """The peak beside what was expected, for people: "peak memory 412 MB, with Python and torch; 430 MB expected"."""
    before = f"; {expected / 1e6:.0f} MB expected" if expected else ""
    return f"peak memory {peak / 1e6:.0f} MB, with Python and torch{before}" if peak else "peak memory: not available on this system"
