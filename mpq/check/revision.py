"""Files as they were at a git revision."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import IO

from mpq.errors import UsageError
from mpq.files import exists
from mpq.records.plan import Plan, read_plan
from mpq.shown import shown


def read_plan_at(place: str) -> Plan:
    """The plan in a file, or at REVISION:PATH; a relative PATH starts in the current folder.

    Raises:
        UsageError: if git does not know the revision or the file in it.
        FormatError: if it is not a plan.
    """
    revision, mark, path = place.partition(":")
    if not mark or exists(Path(place)):
        return read_plan(Path(place))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / Path(path).name
        copy_at(revision, path, copy)
        return read_plan(copy)


def copy_at(revision: str, path: str, to: Path) -> None:
    """Write a file as it was at a git revision to `to`, whatever its size.

    Raises:
        UsageError: if git is not installed, or does not know the revision or the file in it.
    """
    _check(revision, path)
    where = Path(path)
    folder, name = (where.parent, where.name) if where.is_absolute() else (Path(), path)
    with to.open("wb") as file:
        _git("show", f"{revision}:./{name.removeprefix('./')}", folder=folder, what=f"{revision}:{path}", output=file)


def check_revision(revision: str) -> None:
    """Refuse what git does not know.

    Raises:
        UsageError: if git is not installed, or does not know the revision.
    """
    _check(revision, "PATH")
    _git("rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}", folder=Path(), what=f"revision {revision}")


def _check(revision: str, path: str) -> None:
    if not revision or revision.startswith("-") or "\0" in revision + path:
        raise UsageError(f"{shown(f'{revision}:{path}')} is not REVISION:PATH: write for example HEAD~1:plan.yaml")


def _git(*words: str, folder: Path, what: str, output: IO[bytes] | int = subprocess.DEVNULL) -> None:
    try:
        subprocess.run(["git", *words], stdout=output, stderr=subprocess.PIPE, check=True, cwd=folder)
    except FileNotFoundError as error:
        raise UsageError(f"cannot read {what}: git is not installed; name a file instead") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().removeprefix("fatal: ").splitlines()
        raise UsageError(f"cannot read {what}: {reason[0] if reason else 'git does not know it'}") from error
