"""Keeps output of native code off stdout: HiGHS prints its own lines there, which would break `--json`. No torch."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Within the `with`, everything written to file descriptor 1 is discarded; without such a descriptor, nothing happens."""
    try:
        before = os.dup(1)
    except OSError:
        yield
        return
    with contextlib.suppress(AttributeError, ValueError, OSError):
        sys.stdout.flush()
    _flush_native()
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        _flush_native()
        os.dup2(before, 1)
        os.close(nothing)
        os.close(before)


def _flush_native() -> None:
    """Flush the buffers of C's standard streams, if the C library can be found."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)
