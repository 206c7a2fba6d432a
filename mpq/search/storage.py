"""Where a study is stored: at a URL or, by default, in an Optuna journal next to the sensitivity file. No torch."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, unquote_plus

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from mpq.distribution import install
from mpq.errors import FormatError, MpqError, OutputError, UsageError
from mpq.search.journal import REMEDY, StudyJournal
from mpq.shown import shown
from mpq.writing.outputs import refuse_special

_WAIT = 60.0  # seconds to wait for a database that others are setting up or have locked
_BUSY = re.compile(
    r"already exists|locked|duplicate|unique|alembic_version|pg_type|deadlock|serializ|concurrent|AssertionError", re.IGNORECASE
)
_DRIVERS = {"postgresql": install("postgresql")}
_LOGIN = re.compile(r"(//[^:/@\s]*:)[^/\s]*@")  # in driver messages about a URL that the driver built itself
_TELLING = 4  # characters of a part of a password that is hidden too


def open_storage(url: str | None, *, beside: Path) -> BaseStorage:
    """The Optuna storage at `url`; without one, a journal next to the sensitivity file `beside`.

    If workers start at the same time, they set up an empty database at the same time: the second one tries again.

    Raises:
        UsageError: if the URL cannot be opened, or its driver is missing; no password is in the message.
        OutputError: if the journal cannot be written.
    """
    if url is None:
        return journal_beside(beside)
    end = time.monotonic() + _WAIT
    while True:
        try:
            return RDBStorage(_with_driver(url), engine_kwargs={"connect_args": {"timeout": _WAIT}} if url.startswith("sqlite") else None)
        except ImportError as error:
            name = re.split(r"[:+]", url)[0]
            remedy = _DRIVERS.get(name, "install the driver that SQLAlchemy names for it")
            raise UsageError(
                f"--storage {shown(without_password(url, url), 200)} needs a driver that is not installed ({_reason(error, url)}): {remedy}"
            ) from error
        except Exception as error:  # any error of a database driver
            if not _BUSY.search(f"{type(error).__name__}: {error} {error.__cause__}") or time.monotonic() > end:
                raise UsageError(
                    f"--storage {shown(without_password(url, url), 200)} cannot be opened ({_reason(error, url)}): write for example "
                    "sqlite:///study.db"
                ) from error
            time.sleep(random.uniform(0.05, 0.5))


def journal_beside(sensitivity: Path) -> JournalStorage:
    """A resumable storage in `NAME.study.journal`, for `NAME.sensitivity.jsonl`.

    Raises:
        FormatError: if it is damaged anywhere but at its end.
        OutputError: if it cannot be written.
    """
    path = sensitivity.with_name(sensitivity.name.removesuffix(".sensitivity.jsonl") + ".study.journal")
    try:
        if not path.is_symlink():  # a link to a journal elsewhere also works
            refuse_special(path)
        return JournalStorage(StudyJournal(path))
    except MpqError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; give --storage sqlite:///FILE elsewhere") from error
    except Exception as error:  # any error of Optuna at lines that it did not write
        raise FormatError(f"{path} is not a readable study journal: {REMEDY}") from error


@contextmanager
def storage_failures() -> Iterator[None]:
    """Turns errors of a database into one line.

    Raises:
        MpqError: what happened, and that the search resumes.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, StorageInternalError) and type(error).__module__.partition(".")[0] not in ("sqlalchemy", "psycopg"):
            raise
        reason = _reason(error.__cause__ or error, "")
        raise MpqError(f"the storage of the study failed ({reason}): run the command again, it resumes") from error


def without_password(text: str, url: str) -> str:
    """`text` with the password of a URL replaced by ***, encoded or not, and also that of a parameter such as `password=`."""
    authority = re.match(r"[^:/?#]*://(?P<user>.*)@", url, re.DOTALL)  # up to the last "@": a password may contain any character
    secret = authority["user"].partition(":")[2] if authority else ""
    found = [secret, *re.findall(r"(?i)(?:password|passwd|pwd|token|secret)=([^&\s]*)", url)]
    found += [part for part in re.split(r"[@/:?#\s]", secret) if len(part) >= _TELLING]  # in a URL that a driver took apart
    forms = {form for each in found for form in (each, unquote(each), unquote_plus(each)) if form}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def _with_driver(url: str) -> str:
    """The URL with the driver of mpq's extra, if it names none."""
    return re.sub(r"^(postgres|postgresql)://", "postgresql+psycopg://", url)


def _reason(error: BaseException, url: str) -> str:
    """The first line of a driver's message, without passwords."""
    line = " ".join((str(error).splitlines() or [type(error).__name__])[0].split())
    return _LOGIN.sub(r"\1***@", without_password(line, url))
