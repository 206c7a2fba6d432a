"""`mpq monitor table`: the sampled calls of a log as a table for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import print_json, print_lines
from mpq.cli.find_inputs import check_output
from mpq.cli.options import Json


def command(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="What `mpq.monitor.log.append` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The Parquet file to write.")],
    json: Json = False,
) -> None:
    """Write sampled calls of a log as a Parquet table, which evidently, NannyML and pandas open: up to 256 rows for each line of the log.

    A row is one call. `mpq monitor baseline --table` writes the same columns of the calibration data, as the reference.

    Example: mpq monitor table log.jsonl -o current.parquet
    """
    from mpq.monitor.table import columns_in, write_table
    from mpq.records.monitor_log import read_lines

    check_output(output, inputs=(log,))
    columns = columns_in(read_lines(log))
    write_table(columns, output)
    rows = len(next(iter(columns.values())))
    if json:
        print_json({"output": str(output), "rows": rows, "columns": list(columns)})
    else:
        print_lines([f"{output}: {rows:,} rows, {len(columns)} columns"])
