"""How every command prints: results on stdout, narration on stderr, progress with time left. No arithmetic."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mpq.progress import Advance, in_turn, shown_progress
from mpq.shown import ZERO_MARK, ZERO_NOTE, by_reason, json_escaped, listed, one_line, printable
from mpq.shown import figure as figure

SHOWN_NAMES = 5
"""How many of the layers with the same reason are named."""
_UNFOLDED = 1000  # columns of a table if the output is not a terminal


@dataclass
class Voice:
    """How much is printed. `--quiet` keeps only results and errors; `--verbose` adds tracebacks; `next_steps` suggests the next command."""

    quiet: bool = False
    verbose: bool = False
    next_steps: bool = True


voice = Voice()


def say(text: str) -> None:
    """One line of narration on stderr."""
    if not voice.quiet:
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text(printable(_explained(text))))


def suggest(text: str) -> None:
    """The next command, on stderr: "next: mpq ..."; nothing if the next step runs anyway."""
    if voice.next_steps:
        say(f"next: {text}")


@contextmanager
def no_next_steps() -> Iterator[None]:
    """While one command runs several steps, no step suggests the next one."""
    voice.next_steps = False
    try:
        yield
    finally:
        voice.next_steps = True


def warn(text: str) -> None:
    """One line on stderr, printed even with `--quiet`."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(f"warning: {one_line(text)}"))


def print_json(value: Any) -> None:
    """A JSON document on stdout. NaN and infinity, which JSON lacks, become null; invisible characters are escaped."""
    sys.stdout.write(json_escaped(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_lines(lines: Sequence[str]) -> None:
    """Plain result lines on stdout; line breaks and control characters within them are escaped."""
    out = Console(highlight=False, soft_wrap=True)
    for line in lines:
        out.print(Text(printable(_explained(line))))


def _explained(line: str) -> str:
    """The line, with a footnote if a value in it is zero except for rounding."""
    return f"{line} ({ZERO_NOTE})" if ZERO_MARK in line else line


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str | None = None,
    styles: Mapping[int, str] | None = None,
    left: Sequence[str] = (),
) -> None:
    """A table on stdout. Columns after the first are right-aligned, except those named in `left`. `styles` is by row number."""
    heading = None if title is None else Text(printable(title), style="bold")
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(
            Text(printable(name)), justify="left" if number == 0 or name in left else "right", no_wrap=number > 0, overflow="fold"
        )
    for number, row in enumerate(rows):
        table.add_row(*(Text(printable(cell)) for cell in row), style=(styles or {}).get(number))
    _print_columns(table)
    if any(cell.startswith(ZERO_MARK) for row in rows for cell in row):
        print_lines([ZERO_NOTE])


def _print_columns(table: Table) -> None:
    """A table as wide as the terminal; without a terminal, one line per row."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table)
    else:  # one line per row, however long, without trailing blanks
        console = Console(highlight=False, width=_UNFOLDED)
        with console.capture() as captured:
            console.print(table)
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


@contextmanager
def progress(stage: str) -> Iterator[Advance]:
    """A bar with the time left on a terminal, else a plain line now and then; nothing with `--quiet`."""
    with nullcontext(lambda *_: None) if voice.quiet else shown_progress(stage) as advance:
        yield advance


def progress_in_turn() -> AbstractContextManager[Callable[[str], Advance]]:
    """Progress of consecutive stages; each has its own bar and clock, which start with its first report."""
    return in_turn(progress)


def fallback_lines(fallbacks: Mapping[str, str]) -> list[str]:
    """Which layers were quantized without input statistics, one line per reason."""
    start = "quantized by weight error alone, without input statistics"
    return [f"{start}: {listed(names, SHOWN_NAMES)} ({reason})" for reason, names in by_reason(fallbacks).items()]


def peak_line(finish: Mapping[str, Any] | None) -> str:
    """How much memory an analysis took: "peak memory 412 MB, with Python and torch; 430 MB expected"."""
    from mpq.models.memory.peak import peak_text

    cost = (finish or {}).get("cost", {})
    peak, expected = cost.get("peak_memory_bytes", 0), cost.get("expected_memory_bytes", 0)
    return peak_text(peak, expected)
