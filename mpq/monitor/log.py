"""The log of a monitor: each write appends one JSON line with a checksum, with everything seen since the last one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, to_builtins

from mpq.errors import FormatError, OutputError
from mpq.files import check_version, journal_line, journal_lines
from mpq.monitor.alarms import Alarm, alarms, shadow_alarms
from mpq.monitor.baseline import Baseline, SketchFacts, check_sketches
from mpq.monitor.bounds import RunningMean
from mpq.monitor.sketch import sketch_in
from mpq.monitor.watch import Monitor
from mpq.reading.documents import json_document
from mpq.reading.fields import Name, Size
from mpq.reading.validate import validated

VERSION = 1
_REMEDY = "write it with mpq.monitor.log.append"


class MeanFacts(Struct):
    """A running mean."""

    most: float
    count: Size
    total: Annotated[float, Meta(ge=0)]


class Line(Struct):
    """One line of a log."""

    mpq_monitor_log: int
    calls: Size
    sampled: Size
    tensors: dict[Name, SketchFacts]
    divergence: MeanFacts
    agreement: MeanFacts
    most_kl: float | None = None
    least_agreement: float | None = None


def append(monitor: Monitor, path: Path | str) -> None:
    """Append everything that `monitor` has seen since the last time to the log at `path`, as one line, and restart its sketches.

    Raises:
        OutputError: if it cannot be written.
    """
    record = {
        "mpq_monitor_log": VERSION,
        "calls": monitor.calls,
        "sampled": monitor.sampled,
        "tensors": {name: sketch.to_dict() for name, sketch in monitor.sketches.items()},
        "divergence": vars(monitor.divergence),
        "agreement": vars(monitor.agreement),
        **monitor.limits,
    }
    try:
        with Path(path).open("ab") as file:
            file.write(journal_line(record))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place for the log") from error
    monitor.restart()


def read_last(path: Path) -> Line:
    """The last complete line of a log.

    Raises:
        FormatError: if there is none, or it is damaged or from a newer version.
    """
    number, content = 0, b""
    for number, content in journal_lines(path, absent="name a log of `mpq.monitor`"):  # noqa: B007
        pass
    document = json_document(content, name=f"{path}, line {number}", error=FormatError, remedy=_REMEDY)
    version = document.value.get("mpq_monitor_log") if isinstance(document.value, dict) else None
    check_version(version, supported=VERSION, path=path, kind="the log of a monitor")
    found = validated(document, Line)
    check_sketches(document, found.tensors, remedy=_REMEDY)
    return found


def alarms_of(line: Line, baseline: Baseline) -> list[Alarm]:
    """The alarms at the time when a line was written."""
    sketches = {name: sketch_in(to_builtins(sketch)) for name, sketch in line.tensors.items()}
    means = [RunningMean(each.most, each.count, each.total) for each in (line.divergence, line.agreement)]
    shadowed = shadow_alarms(means[0], means[1], most_kl=line.most_kl, least_agreement=line.least_agreement)
    return [*alarms(baseline, sketches), *shadowed]
