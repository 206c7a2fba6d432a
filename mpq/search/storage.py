"""Where a study is kept when nobody says otherwise: Optuna's journal in a file beside the sensitivity file. No torch."""

from __future__ import annotations

from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mpq.files import OutputError


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
