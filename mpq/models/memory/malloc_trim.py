"""Memory that is free, but still counts as the process's own."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of mallopt
_LARGE = 1 << 20


def return_freed_memory() -> None:
    """Give what the C library keeps for later allocations back to the system; nothing where it is not glibc."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def return_large_blocks() -> None:
    """From now on have the C library give each large block back as soon as it is freed; nothing where it is not glibc.

    Else it keeps blocks of up to 32 MB for later, among which those that are in use lie scattered.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
