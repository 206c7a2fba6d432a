"""A PostgreSQL cluster of its own for one test: made, started on a socket in its folder, stopped and removed. No network."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path

_USERS = ("postgres", "nobody")
_PLACES = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt")


class MissingError(Exception):
    """PostgreSQL, its driver, or a user to run it as is not here."""


@contextmanager
def cluster() -> Iterator[str]:
    """The URL of an empty database.

    Raises:
        MissingError: saying what is not here.
    """
    if util.find_spec("psycopg") is None:
        raise MissingError("psycopg is not installed")
    programs, user = _programs(), _user()
    folder = Path(tempfile.mkdtemp(prefix="mpq-pg-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        name = user or pwd.getpwuid(os.getuid()).pw_name
        _run(folder, user, programs / "initdb", "-D", folder / "data", "-U", name, "-A", "trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=60"
        control = (programs / "pg_ctl", "-D", folder / "data")
        _run(folder, user, *control, "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://{name}@/postgres?host={folder}"
        finally:
            _run(folder, user, *control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, user: str | None, *line: Path | str) -> None:
    done = subprocess.run(line, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60)
    if done.returncode:
        raise MissingError(f"{Path(line[0]).name} failed: {done.stderr.strip()[:200]}")


def _programs() -> Path:
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += [path.parent for place in _PLACES for path in sorted(Path(place).glob("*/bin/initdb"), reverse=True)]
    for candidate in candidates:
        if (candidate / "pg_ctl").exists():
            return candidate
    raise MissingError("PostgreSQL is not installed (initdb and pg_ctl): apt-get install postgresql")


def _user() -> str | None:
    """Who runs it: this user, or another one where this one is root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise MissingError("there is no user postgres or nobody, and PostgreSQL refuses to run as root")
