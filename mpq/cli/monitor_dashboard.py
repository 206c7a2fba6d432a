"""`mpq monitor dashboard`: a dashboard for Grafana."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import say


def command(
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it. [default: stdout]")] = None,
) -> None:
    """Write a Grafana dashboard of what `mpq.monitor.prometheus` exports: alarms, drift, ranges, agreement with the reference.

    In Grafana: Dashboards, New, Import.

    Example: mpq monitor dashboard -o mpq-dashboard.json
    """
    from mpq.files import write_text
    from mpq.monitor.dashboard import dashboard

    text = json.dumps(dashboard(), indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    write_text(output, text)
    say(f"wrote {output}: import it in Grafana")
