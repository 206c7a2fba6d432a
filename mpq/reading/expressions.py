"""Regular expressions from users and files, with limits on length and search time. No torch.

An expression with nested repeats, such as `(a*)*b`, can take forever on a name of thirty characters. Python checks for
signals while it searches, so a system timer can stop it. Windows and threads other than the main one have no such timer: there,
only the length is limited.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

from mpq.errors import MpqError
from mpq.limits import EXPRESSION_SECONDS, EXPRESSION_TEXT
from mpq.shown import shown

T = TypeVar("T")
_SHORTEST = 1e-3  # seconds; 0 would disable the timer


class _TooSlow(Exception):  # noqa: N818
    """The timer has run out."""


class Expression:
    """A regular expression that was read from a file or an option.

    Args:
        text: as it was given.
        error: the type of error for a bad expression, and for searches that together take too long.

    Raises:
        MpqError: of type `error`, if `text` is not a regular expression, or is too long.
    """

    def __init__(self, text: str, *, error: type[MpqError]) -> None:
        if len(text) > EXPRESSION_TEXT:
            raise error(f"the regular expression {shown(text)} has more than {EXPRESSION_TEXT:,} characters: write a shorter one")
        try:
            self._pattern = re.compile(text)
        except (re.error, RecursionError, OverflowError) as problem:
            raise error(f"{shown(text)} is not a regular expression: {problem}") from problem
        self._text, self._error, self._left = text, error, EXPRESSION_SECONDS

    def fullmatch(self, name: str) -> bool:
        """Whether all of `name` matches."""
        return self._within(lambda: self._pattern.fullmatch(name)) is not None

    def match(self, name: str) -> bool:
        """Whether the start of `name` matches."""
        return self._within(lambda: self._pattern.match(name)) is not None

    def search(self, name: str) -> bool:
        """Whether any part of `name` matches."""
        return self._within(lambda: self._pattern.search(name)) is not None

    def _within(self, run: Callable[[], T]) -> T:
        began = time.process_time()
        try:
            if self._left <= 0:  # many short searches used up the time
                raise _TooSlow
            with _timer(max(_SHORTEST, self._left)):
                return run()
        except _TooSlow:
            reason = f"takes more than {EXPRESSION_SECONDS:g} s to search all names: write it without nested repeats"
            raise self._error(f"the regular expression {shown(self._text)} {reason}") from None
        finally:
            self._left -= time.process_time() - began


@contextmanager
def _timer(seconds: float) -> Iterator[None]:
    """Raise `_TooSlow` in this block after so many seconds of computing."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _too_slow)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _too_slow(number: int, frame: FrameType | None) -> NoReturn:
    raise _TooSlow
