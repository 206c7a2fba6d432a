"""Progress of long steps: a bar on a terminal, one updating line in a notebook, and an occasional plain line elsewhere. No torch."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from mpq.shown import duration, printable

Advance = Callable[[int, int, str], None]
"""Reports progress: done, total, what was done."""

_PLAIN_EVERY = 10.0  # seconds between lines if the output is not a terminal
_NOTEBOOK_EVERY = 0.2  # seconds between updates of the line in a notebook


@contextmanager
def shown_progress(stage: str) -> Iterator[Advance]:
    """A callback for each step of `stage`, which shows progress on stderr or below a notebook cell."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if console.is_jupyter:
        yield _NotebookProgress(stage)
    elif console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(stage, total=None, text="")
            yield lambda done, total, text: bar.update(task, completed=done, total=total, text=printable(text))
    else:
        yield _PlainProgress(stage, lambda line: console.print(Text(printable(line))))


@contextmanager
def in_turn(show: Callable[[str], Any] = shown_progress) -> Iterator[Callable[[str], Advance]]:
    """Progress of consecutive stages; each has its own bar and clock, which start with its first report."""
    begun: dict[str, Advance] = {}
    with ExitStack() as stack:

        def stage(name: str) -> Advance:
            def advance(done: int, total: int, text: str) -> None:
                if name not in begun:
                    stack.close()
                    begun[name] = stack.enter_context(show(name))
                begun[name](done, total, text)

            return advance

        yield stage


@contextmanager
def reported(stage: str, *, wanted: bool, also: Advance | None = None) -> Iterator[Advance]:
    """A callback for each step, which shows progress if `wanted` and also calls `also`."""
    with shown_progress(stage) if wanted else nullcontext(lambda *_: None) as advance:
        yield both(advance, also)


def both(first: Advance, second: Advance | None) -> Advance:
    """One call for two."""

    def advance(done: int, total: int, text: str) -> None:
        first(done, total, text)
        if second is not None:
            second(done, total, text)

    return advance


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    return Progress(*columns, TextColumn("{task.fields[text]}", markup=False), console=console, transient=True)


class _Clock:
    """Progress as text: "analyze 12/77, 40 s left: conv1 int4".

    The rate is measured from the first report of a stage, so preparation before it does not count as a step.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._first = self._previous = (math.inf, 0.0)  # steps done, and when

    def line(self, done: int, total: int, text: str) -> str:
        """What to show now."""
        now = time.monotonic()
        if done < self._previous[0]:  # the very first report, or a new stage
            self._first = (done, now)
        self._previous = (done, now)
        steps, seconds = done - self._first[0], now - self._first[1]
        left = f", {duration(seconds / steps * (total - done))} left" if steps > 0 else ""
        return f"{self._stage} {done}/{total}{left}: {text}"


class _PlainProgress:
    """One line every ten seconds until the stage is done."""

    def __init__(self, stage: str, say: Callable[[str], None]) -> None:
        self._clock, self._say, self._last = _Clock(stage), say, time.monotonic()

    def __call__(self, done: int, total: int, text: str) -> None:
        line, now = self._clock.line(done, total, text), time.monotonic()
        if now - self._last >= _PLAIN_EVERY and done != total:
            self._last = now
            self._say(line)


class _Shown:
    """Plain text for a notebook."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class _NotebookProgress:
    """One line below the cell that updates in place; it needs no widgets."""

    def __init__(self, stage: str) -> None:
        self._clock, self._handle, self._last = _Clock(stage), None, -math.inf

    def __call__(self, done: int, total: int, text: str) -> None:
        line, now = _Shown(printable(self._clock.line(done, total, text))), time.monotonic()
        if now - self._last < _NOTEBOOK_EVERY and done != total:
            return
        self._last = now
        if self._handle is None:
            self._handle = importlib.import_module("IPython.display").display(line, display_id=True)
        else:
            self._handle.update(line)
