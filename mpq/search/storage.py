"""Where a study is kept: at a URL, or when nobody says otherwise in Optuna's journal beside the sensitivity file. No torch."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, unquote_plus

from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from mpq.errors import UsageError
from mpq.files import OutputError
from mpq.shown import shown

_TELLING = 4  # characters of a part of a password that is hidden, too


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
        place, reason = (without_password(text, url) for text in (url, reason))
        raise UsageError(f"--storage {shown(place, 200)} cannot be opened ({reason}): write for example sqlite:///study.db") from error


def without_password(text: str, url: str) -> str:
    """`text` in which the password of a URL is written as ***, encoded or not, and so is that of a parameter such as `password=`."""
    authority = re.match(r"[^:/?#]*://(?P<user>.*)@", url, re.DOTALL)  # up to the last "@": a password may hold any sign
    secret = authority["user"].partition(":")[2] if authority else ""
    found = [secret, *re.findall(r"(?i)(?:password|passwd|pwd|token|secret)=([^&\s]*)", url)]
    found += [part for part in re.split(r"[@/:?#\s]", secret) if len(part) >= _TELLING]  # of a URL that a driver took apart
    forms = {form for each in found for form in (each, unquote(each), unquote_plus(each)) if form}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


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
