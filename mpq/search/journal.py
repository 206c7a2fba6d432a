"""Optuna's journal in a file that a kill or a full disk cannot corrupt. No torch.

Optuna's own backend appends to a line that was cut off, which makes the file unreadable, and its lock is a link that stays when its owner
is killed and blocks the next run. Here, a torn line is removed before appending, each line has a checksum (`writing/checksums.py`; Optuna
ignores that key), and the lock is one of the operating system, which ends with its process. If the file system has no locks, Optuna's lock
is used. What is noted of a trial is written at once, where a kill cannot undo it, and synced to disk with the line that ends the trial.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file
from optuna.storages.journal._storage import JournalOperation

from mpq.errors import FormatError, OutputError
from mpq.files import open_file
from mpq.limits import LINE_BYTES, STUDY_BYTES
from mpq.writing.checksums import DamageError, cut_torn_end, sealed, unsealed
from mpq.writing.locks import exclusive, has_locks

REMEDY = "remove it, and the search starts over"
_NOTES = (
    JournalOperation.SET_TRIAL_PARAM,
    JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE,
    JournalOperation.SET_TRIAL_USER_ATTR,
    JournalOperation.SET_TRIAL_SYSTEM_ATTR,
)  # of a trial that has not ended, worth nothing without its end


class StudyJournal(JournalFileBackend):  # type: ignore[misc,unused-ignore]
    """The lines of a study in a file; several processes may use it.

    Args:
        path: the file, created if needed.

    Raises:
        OSError: if it cannot be created.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._ends = [0]  # start of each line read so far, and of the next line

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """All complete lines from this one on.

        Raises:
            FormatError: if a line other than the last is damaged.
        """
        number = min(log_number_from, len(self._ends) - 1)
        with open_file(self._path) as file:
            if (size := os.fstat(file.fileno()).st_size) > STUDY_BYTES:
                raise FormatError(f"{self._path} has {size:,} bytes, more than {STUDY_BYTES:,}: {REMEDY}")
            file.seek(self._ends[number])
            while (line := file.readline(LINE_BYTES)).endswith(b"\n"):
                try:
                    record = unsealed(line[:-1])
                except DamageError as error:
                    if error.torn and not file.readline(LINE_BYTES).endswith(b"\n"):
                        return
                    raise FormatError(f"{self._path}, line {number + 1}: {error}; the file is damaged: {REMEDY}") from error
                if number + 1 == len(self._ends):
                    self._ends.append(self._ends[number] + len(line))
                if number >= log_number_from:
                    yield record
                number += 1
        if len(line) == LINE_BYTES:
            raise FormatError(f"{self._path}, line {number + 1} has more than {LINE_BYTES:,} bytes: {REMEDY}")

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines, after removing one that another process did not finish, and sync them if they are more than notes of a trial.

        Raises:
            OutputError: if the disk is full or the file has become unwritable.
        """
        try:
            with self._path.open("rb+") as file, self._alone(file.fileno()):
                cut_torn_end(file)
                file.write(b"".join(sealed(log) for log in logs))
                file.flush()
                if not all(log.get("op_code") in _NOTES for log in logs):
                    os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror or error}; free some space and run the command again, it resumes"
            ) from error

    def _alone(self, descriptor: int) -> AbstractContextManager[None]:
        return exclusive(descriptor) if has_locks(descriptor) else get_lock_file(self._lock)
