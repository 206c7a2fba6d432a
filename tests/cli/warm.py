"""Processes that start warm: forked by a server that has imported torch and mpq once, where importing them is not what is tested."""

import functools
import gc
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.cli.typed import environment

_FIRST = ("torch.export.pt2_archive", "pandas", "scipy.stats", "optuna.storages", "sqlalchemy.orm", "mpq.cli.main", "mpq.one_shot")


class Warm:
    """A process of its own, used like `subprocess.Popen` with text."""

    def __init__(self, run: Callable[..., None], *words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mpq-warm-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.process = _start(_child, (self.folder, dict(env or environment()), cwd or Path.cwd(), run, words))

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def returncode(self) -> int:
        """As `Popen` gives it once the process has ended: negative for a signal."""
        assert self.process.exitcode is not None
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def wait(self, timeout: float) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.process.exitcode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it printed on stdout and stderr."""
        self.wait(timeout)
        return (self.folder / "out").read_text(), (self.folder / "err").read_text()


def started(line: str) -> Warm:
    """Start a command of mpq, in which Ctrl-C is not ignored."""
    return Warm(_command, *shlex.split(line))


def run(line: Sequence[str], *, env: Mapping[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
    """In place of `subprocess.run`, for `python -P -m module words`."""
    assert list(line[:3]) == [sys.executable, "-P", "-m"]
    process = Warm(_module, *line[3:], env=env)
    out, err = process.communicate()
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def program(text: str) -> Warm:
    """Start a program of several lines."""
    return Warm(_program, text)


@functools.cache
def context(_: str = "forkserver") -> Any:
    """The server, in place of what `multiprocessing.get_context` gives."""
    made = get_context("forkserver")
    made.set_forkserver_preload(list(_FIRST))
    return made


def _start(target: Callable[..., None], words: tuple[Any, ...]) -> BaseProcess:
    before = dict(os.environ)
    os.environ.update(environment())  # of the server, if this is the first process: one thread
    try:
        process: BaseProcess = context().Process(target=target, args=words)
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return process


def _child(folder: Path, env: Mapping[str, str], cwd: Path, run: Callable[..., None], words: Sequence[str]) -> None:
    gc.freeze()  # what the server has imported is neither searched nor copied
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run(*words)


def _command(*words: str) -> None:
    from mpq.cli.main import main

    sys.argv = ["mpq", *words]
    main()


def _program(text: str) -> None:
    exec(compile(text, "<program>", "exec"), {"__name__": "__main__"})


def _module(name: str, *words: str) -> None:
    sys.argv = [name, *words]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
