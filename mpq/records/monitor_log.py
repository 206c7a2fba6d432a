"""The log of a monitor: one JSON line with a checksum per write, with everything seen since the last one. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from mpq.errors import FormatError
from mpq.files import check_version, first_bytes, journal_lines
from mpq.reading.documents import json_document
from mpq.reading.fields import Name, Positive, Size
from mpq.reading.validate import validated
from mpq.records.sketch import SketchFacts, check_sketches

VERSION = 1
TIME, PREDICTION = "time", "prediction"
"""Columns of `rows`: seconds since 1970, and the class that the first sample's last logits choose."""
_REMEDY = "start a new log with mpq.monitor.log.append"
_ABSENT = "name a log of `mpq.monitor`"


class MeanFacts(Struct):
    """A running mean, see `evidence/running_mean.py`."""

    most: float
    count: Size
    total: Annotated[float, Meta(ge=0)]
    spread: Annotated[float, Meta(ge=0)]


class Fallback(Struct):
    """A layer of a packed model that ran through another kernel than expected."""

    layer: Name
    ran: Name
    expected: Name
    count: Size


class Line(Struct):
    """One line of a log.

    `rows` has columns of some of the sampled calls: when they were, means and deviations of tensors, and the prediction. `kept` is the
    number of calls whose inputs are in the file of `samples_path`. `kernels` says how often each kernel ran in sampled calls, by layer;
    it is None where that is not known.
    """

    mpq_monitor_log: int
    time: Positive
    calls: Size
    sampled: Size
    tensors: dict[Name, SketchFacts]
    divergence: MeanFacts
    agreement: MeanFacts
    most_kl: float | None = None
    least_agreement: float | None = None
    rows: dict[Name, list[float | None]] = {}
    kept: Size = 0
    kernels: dict[Name, dict[Name, Size]] | None = None
    fallbacks: list[Fallback] = []


def samples_path(log: Path) -> Path:
    """The file with the inputs of some calls of the last line: NAME.samples.pt."""
    return log.with_name(log.name.removesuffix(".jsonl") + ".samples.pt")


def is_monitor_log(path: Path) -> bool:
    """Whether a file starts like the log of a monitor."""
    return path.is_file() and first_bytes(path, error=FormatError, remedy=_ABSENT).startswith(b'{"mpq_monitor_log"')


def kernels_line(line: Line) -> str:
    """Which kernels ran, for people: "kernels that ran: bags4 24 times, blocks 12 times"."""
    if line.kernels is None:
        return "which kernels ran is not known, because no layer is packed"
    runs = Counter[str]()
    for found in line.kernels.values():
        runs.update(found)
    return f"kernels that ran: {', '.join(f'{name} {count:,} times' for name, count in sorted(runs.items())) or 'none'}"


def read_lines(path: Path) -> Iterator[Line]:
    """The complete lines of a log, in order.

    Raises:
        FormatError: if it is damaged or from a newer version.
    """
    for number, content in _contents(path):
        yield _line(path, number, content)


def read_last(path: Path) -> Line:
    """The last complete line of a log.

    Raises:
        FormatError: if there is none, or it is damaged or from a newer version.
    """
    number, content = 0, b""
    for number, content in _contents(path):  # noqa: B007
        pass
    return _line(path, number, content)


def _contents(path: Path) -> Iterator[tuple[int, bytes]]:
    return journal_lines(path, absent=_ABSENT, remedy=_REMEDY, smaller=_REMEDY)


def _line(path: Path, number: int, content: bytes) -> Line:
    document = json_document(content, name=f"{path}, line {number}", error=FormatError, remedy=_REMEDY)
    version = document.value.get("mpq_monitor_log") if isinstance(document.value, dict) else None
    check_version(version, supported=VERSION, path=path, kind="the log of a monitor")
    found = validated(document, Line)
    check_sketches(document, found.tensors, remedy=_REMEDY)
    return found
