"""Returns freed memory that still counts as the process's own."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of mallopt
_LARGE = 1 << 20


def return_freed_memory() -> None:
    """Return memory that the C library keeps for later allocations to the system; no effect without glibc."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def return_large_blocks() -> None:
    """From now on, make the C library return each large block as soon as it is freed; no effect without glibc.

    Otherwise it keeps freed blocks of up to 32 MB, scattered among those in use.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
