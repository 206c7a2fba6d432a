"""One case within a child that runs many: its limits of time and memory, what it took, and what went wrong."""

from __future__ import annotations

import io
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults import world
from benchmarks.faults.forks import BYTES, SECONDS, Failure, failure_of

_LONGEST = 2000  # characters of a line of an error message
_PATIENCE = 3
_PAGE = resource.getpagesize()
_MEMORY = ("can't allocate memory", "Cannot allocate memory", "bad_alloc", "Unable to allocate")


@dataclass(frozen=True)
class Watched:
    """What a case did.

    Args:
        failure: what went wrong, if anything did.
        seconds: it took.
        bytes: it held in addition, at most.
    """

    failure: Failure | None
    seconds: float
    bytes: int


def watched(run: Callable[[], Any], *, codes: Sequence[int] = (0, 2, 3), seconds: float = SECONDS, memory: int = BYTES) -> Watched:
    """Run a case in this process under its limits. One that takes too long ends the process by SIGPROF or SIGALRM.

    An exception of mpq, and an exit code among `codes`, are as it should be; everything else is a failure, and so are messages too long
    to read, control characters, and workflow commands in what is printed.
    """
    from mpq.errors import MpqError

    before = _reset_peak()
    _limit(memory)
    _start_clocks(seconds)
    printed, began, failure = io.StringIO(), time.monotonic(), None
    world.LAST.clear()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            value = run()
        failure = _of_value(value, codes) or _of_text(printed.getvalue())
    except MpqError as error:
        failure = _out_of_memory(error)
    except BaseException as error:  # that is what is looked for
        failure = failure_of(error)
    finally:
        _start_clocks(0)
        took = time.monotonic() - began
        _unlimit()
    return Watched(failure, took, max(0, _peak() - before))


def _start_clocks(seconds: float) -> None:
    """So many seconds of computing, and three times as many in all, so that other programs decide little and waiting ends too."""
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE * seconds)


def _of_value(value: Any, codes: Sequence[int]) -> Failure | None:
    if type(value) is int and value not in codes:
        return Failure(f"exit code {value}", "the command", "", "")
    return _out_of_memory(world.LAST[0]) if world.LAST else None


def _of_text(text: str) -> Failure | None:
    """What must not be printed: control characters, workflow commands, lines of thousands of characters."""
    if any((ord(character) < 32 and character not in "\n\t") or 127 <= ord(character) < 160 for character in text):
        return Failure("control characters printed", "the command", text[:300], "")
    lines = text.splitlines()
    if any(line.startswith("::") for line in lines):
        return Failure("workflow command printed", "the command", text[:300], "")
    longest = max((line for line in lines if line.startswith("mpq: ")), key=len, default="")
    return Failure(f"message of more than {_LONGEST} characters", "the command", longest[:300], "") if len(longest) > _LONGEST else None


def _out_of_memory(error: BaseException) -> Failure | None:
    """A refusal that was made only because memory was refused first."""
    for each in _chain(error):
        if isinstance(each, MemoryError) or any(mark in str(each) for mark in _MEMORY):
            found = failure_of(each)
            return Failure("over the memory limit", found.where, found.text, found.trace)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        yield now
        now = now.__cause__ or now.__context__


def _limit(memory: int) -> None:
    most = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE + memory
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def _unlimit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _reset_peak() -> int:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
