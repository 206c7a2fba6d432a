"""Commands as they are typed, in this process or in one of their own."""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

import mpq
from mpq.cli.main import app

ROOT = Path(mpq.__file__).parents[1]


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def typed(line: str) -> Ran:
    """Run `line`, without the leading "mpq", in this process and folder; a traceback fails the test."""
    result = CliRunner().invoke(app, shlex.split(line))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def done(line: str) -> Ran:
    """Run `line`, which must succeed."""
    ran = typed(line)
    assert ran.code == 0, ran.err
    return ran


def refused(line: str, code: int) -> str:
    """Run `line`, which must fail with `code`, say why in one line of stderr, print no result, and leave no file; the reason."""
    before = files()
    ran = typed(line)
    *narration, last = ran.err.splitlines()
    assert (ran.code, ran.out, files()) == (code, "", before), ran.err
    assert last.startswith("mpq: "), ran.err
    assert not any(other.startswith(("mpq:", "Traceback")) for other in narration), ran.err
    return last.removeprefix("mpq: ")


def files() -> list[str]:
    """All files below this folder, hidden ones too, but for the cache of codes and statistics."""
    return sorted(path.as_posix() for path in Path().rglob("*") if ".mpq-cache" not in path.parts)


def environment(**more: str) -> dict[str, str]:
    """An environment in which this checkout is the mpq that runs."""
    paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"} | more


def started(line: str, **more: str) -> subprocess.Popen[str]:
    """Start `line` in a process of its own, in which Ctrl-C is not ignored."""
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from mpq.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *shlex.split(line)],
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
