"""Rows of sampled calls as a Parquet table, which evidently, NannyML and pandas open. Requires pyarrow. No torch.

A row is one call: the time, the mean and the deviation of each watched tensor and of the certainty of the answers, and the prediction.
The table of the calibration data is the reference, that of a log is the current data.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpq.distribution import install
from mpq.errors import FormatError, UsageError
from mpq.files import atomic_write
from mpq.records.monitor_log import PREDICTION, TIME, Line


def columns_in(lines: Iterable[Line]) -> dict[str, list[Any]]:
    """All rows of the lines of a log, as columns of one length.

    Raises:
        FormatError: if there is none, or the columns of a line differ in length.
    """
    found: dict[str, list[Any]] = {}
    count = 0
    for number, line in enumerate(lines, start=1):
        lengths = {len(column) for column in line.rows.values()}
        if len(lengths) > 1:
            raise FormatError(f"line {number} of the log has columns of different lengths: write it again with mpq.monitor.log.append")
        more = lengths.pop() if lengths else 0
        for name in {**found, **line.rows}:
            found.setdefault(name, [None] * count).extend(line.rows.get(name, [None] * more))
        count += more
    if not count:
        raise FormatError("the log has no rows: no call was sampled")
    return found


def write_table(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Write columns as a Parquet file.

    Raises:
        UsageError: if pyarrow is not installed.
        OutputError: if it cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(f"pyarrow is not installed here: {install('data')}") from error
    with atomic_write(path) as file:
        parquet.write_table(pyarrow.table({name: _typed(name, column) for name, column in columns.items()}), file)


def _typed(name: str, column: Sequence[Any]) -> list[Any]:
    if name == TIME:
        return [None if value is None else datetime.datetime.fromtimestamp(value, tz=datetime.UTC) for value in column]
    if name == PREDICTION:
        return [None if value is None else int(value) for value in column]
    return list(column)
