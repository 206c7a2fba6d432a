"""Runs functions in forked children, under limits of time and memory, and says how they ended.

The parent has imported torch and mpq and runs nothing itself, so that a child starts in milliseconds and a crash harms nobody.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import mpq

SECONDS = 5.0
BYTES = 1 << 30
_ROOT = str(Path(mpq.__file__).parent)
_PAGE = resource.getpagesize()
_POLL = 0.003
_READ = 1 << 20


@dataclass(frozen=True)
class Task:
    """A function to run in a child of its own.

    Args:
        run: called without arguments; what it returns is pickled.
        folder: the child's current folder.
        seconds: after which it is killed; None for no limit.
        memory: bytes that it may take in addition to what the parent holds; None for no limit.
        kill_after: seconds after which it is killed on purpose.
        label: for whoever reads the result.
    """

    run: Callable[[], Any]
    folder: Path
    seconds: float | None = SECONDS
    memory: int | None = None
    kill_after: float | None = None
    label: Any = None


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Args:
        task: what it did.
        value: what the function returned; None if it did not return.
        signal: that ended it; 0 if none did.
        timed_out: whether it ran over its limit of time.
        failure: the exception that left the function, if one did.
        seconds: how long it ran.
        bytes: most memory that it was seen to hold in addition to what it held at first.
        out: what it printed on both streams.
        process: its number.
    """

    task: Task
    value: Any
    signal: int
    timed_out: bool
    failure: Failure | None
    seconds: float
    bytes: int
    out: str
    process: int


@dataclass(frozen=True)
class Failure:
    """An exception: its type, where in mpq it was raised last, its message, and its whole traceback."""

    type: str
    where: str
    text: str
    trace: str


class _Running:
    def __init__(self, task: Task) -> None:
        self.task, self.began = task, time.monotonic()
        self.answer, self.printed = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115 (closed when they are read)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _child(task, self.answer, self.printed)
        self.late = False
        self.first = self.most = resident(self.pid)

    def ended(self) -> Ended | None:
        """What became of the child, if it has ended; a late one is killed."""
        self.most = max(self.most, resident(self.pid))
        done, status = os.waitpid(self.pid, os.WNOHANG)
        seconds = time.monotonic() - self.began
        if done == 0:
            self._end_late(seconds)
            return None
        self.end_group()
        value, failure = _answer(self.answer)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        late = self.late or number in (signal.SIGALRM, signal.SIGPROF)
        return Ended(self.task, value, number, late, failure, seconds, self.most - self.first, _text(self.printed), self.pid)

    def _end_late(self, seconds: float) -> None:
        limit, on_purpose = self.task.seconds, self.task.kill_after
        self.late = self.late or (limit is not None and seconds > limit)
        if self.late or (on_purpose is not None and seconds > on_purpose):
            self.end_group()

    def end_group(self) -> None:
        """Kill the child and what it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def run_all(tasks: Iterable[Task], *, jobs: int = 1) -> Iterator[Ended]:
    """Run `tasks` in children, at most `jobs` at once, and give each result as soon as it is there."""
    waiting, running = iter(tasks), list[_Running]()
    more = True
    try:
        while more or running:
            while more and len(running) < jobs:
                task = next(waiting, None)
                more = task is not None
                running += [_Running(task)] if task is not None else []
            done = [(child, found) for child in running if (found := child.ended()) is not None]
            for child, found in done:
                running.remove(child)
                yield found
            if not done:
                time.sleep(_POLL)
    finally:
        for child in running:
            child.end_group()
            with suppress(ChildProcessError):
                os.waitpid(child.pid, 0)


def run_one(run: Callable[[], Any], folder: Path, *, seconds: float | None = None, memory: int | None = None) -> Ended:
    """Run one function in a child."""
    return next(run_all([Task(run, folder, seconds, memory)]))


def resident(process: int) -> int:
    """Bytes of memory that a process holds now; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def failure_of(error: BaseException) -> Failure:
    """An exception with the last line of mpq that it passed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(_ROOT)]
    where = f"mpq{frames[-1].filename.removeprefix(_ROOT)}:{frames[-1].name}" if frames else "outside mpq"
    short = traceback.format_exception(error)
    return Failure(type(error).__name__, where, str(error)[:2000], "".join(short[-40:])[-6000:])


def limit_memory(extra: int) -> None:
    """Let this process take at most `extra` bytes of addresses more than it has."""
    most = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE + extra
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _child(task: Task, answer: IO[bytes], printed: IO[bytes]) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, printed.fileno()), (2, printed.fileno())):
            os.dup2(source, target)
        os.chdir(task.folder)
        if task.memory is not None:
            limit_memory(task.memory)
        try:
            found: tuple[Any, Failure | None] = (task.run(), None)
        except BaseException as error:  # whatever it is, the parent is told
            found = (None, failure_of(error))
        answer.write(pickle.dumps(found))
        answer.flush()
        code = 0
    finally:
        os._exit(code)


def _answer(file: IO[bytes]) -> tuple[Any, Failure | None]:
    file.seek(0)
    content = file.read()
    file.close()
    try:
        value, failure = pickle.loads(content)
    except Exception:  # the child was killed before, or while, it wrote
        return None, None
    return value, failure


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    content = file.read(_READ)
    file.close()
    return content.decode(errors="replace")
