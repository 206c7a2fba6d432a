"""Where an export goes: looked at before the work begins, and filled at once when all is written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpq.files import OutputError


def check_place(output: Path, *, folder: bool, suffix: str | None = None) -> None:
    """Refuse a place that cannot be written to, as far as that shows beforehand.

    Args:
        output: the file or folder to be.
        folder: whether it is to be a folder.
        suffix: what its name must end with, where the reading program wants that.

    Raises:
        OutputError: with what is in the way.
    """
    other = "choose another place with --output"
    if suffix is not None and output.suffix != suffix:
        raise OutputError(f"cannot write {output}: the name must end with {suffix}")
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: there is no folder {output.parent}; {other}")
    if folder and output.exists() and not output.is_dir():
        raise OutputError(f"cannot write {output}: it is a file, and this target writes a folder; {other}")
    if not folder and output.is_dir():
        raise OutputError(f"cannot write {output}: it is a folder, and this target writes a file; {other}")


@contextmanager
def staged(folder: Path, *, last: str) -> Iterator[Path]:
    """An empty folder whose files move into `folder` when all are written; without the one called `last`, nothing loads them.

    `folder` is made if it is not there. Whatever happens, no mixture of old and new files is found under the name `last`.

    Raises:
        OutputError: if the folder is read-only or full; nothing is left behind.
    """
    made: Path | None = None
    try:
        parent = folder if folder.is_dir() else folder.parent
        made = Path(tempfile.mkdtemp(prefix=".mpq-", dir=parent))
        yield made
        folder.mkdir(exist_ok=True)
        (folder / last).unlink(missing_ok=True)
        for file in sorted(made.iterdir(), key=lambda file: file.name == last):
            file.replace(folder / file.name)
    except OSError as error:
        raise OutputError(f"cannot write {folder / last}: {error.strerror or error}; choose another place with --output") from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
