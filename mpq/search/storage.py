"""Where a study is kept: at a URL, or when nobody says otherwise in Optuna's journal beside the sensitivity file. No torch."""

from __future__ import annotations

from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from mpq.errors import UsageError
from mpq.files import OutputError


def open_storage(url: str | None, *, beside: Path) -> BaseStorage:
    """The Optuna storage at `url`; without one, a journal beside the sensitivity file `beside`.

    Raises:
        UsageError: if the URL cannot be opened.
        OutputError: if the journal cannot be written.
    """
    if url is None:
        return journal_beside(beside)
    try:
        return get_storage(url)
    except Exception as error:  # whatever the driver of a database raises
        reason = " ".join((str(error).splitlines() or [type(error).__name__])[0].split())
        raise UsageError(f"--storage '{url}' cannot be opened ({reason}): write for example sqlite:///study.db") from error


def journal_beside(sensitivity: Path) -> JournalStorage:
    """A resumable storage in `NAME.study.journal`, for `NAME.sensitivity.jsonl`.

    Raises:
        OutputError: if it cannot be written there.
    """
    path = sensitivity.with_name(sensitivity.name.removesuffix(".sensitivity.jsonl") + ".study.journal")
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; give --storage sqlite:///FILE elsewhere") from error
