"""Files as they were at a git revision."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from mpq.errors import UsageError
from mpq.records.plan import Plan, read_plan


def read_plan_at(place: str) -> Plan:
    """The plan in a file, or at REVISION:PATH; a relative PATH starts in the current folder.

    Raises:
        UsageError: if git does not know the revision or the file in it.
        FormatError: if it is not a plan.
    """
    revision, mark, path = place.partition(":")
    if not mark or Path(place).exists():
        return read_plan(Path(place))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / Path(path).name
        copy.write_bytes(bytes_at(revision, path))
        return read_plan(copy)


def bytes_at(revision: str, path: str) -> bytes:
    """The contents of a file at a git revision.

    Raises:
        UsageError: if git is not there, or does not know the revision or the file in it.
    """
    if not revision or revision.startswith("-"):
        raise UsageError(f"'{revision}:{path}' is not REVISION:PATH: write for example HEAD~1:plan.yaml")
    relative = path if path.startswith(("./", "/")) else f"./{path}"
    try:
        return subprocess.run(["git", "show", f"{revision}:{relative}"], capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise UsageError(f"cannot read {revision}:{path}: git is not installed; name a file instead") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().removeprefix("fatal: ").splitlines()
        raise UsageError(f"cannot read {revision}:{path}: {reason[0] if reason else 'git failed'}") from error
