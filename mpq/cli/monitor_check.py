"""`mpq monitor check`: has the data of a running model drifted from its calibration data?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import print_json, print_lines
from mpq.cli.options import Json


def command(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="What `mpq.monitor.log.append` wrote; its last line is judged.")],
    against: Annotated[
        Path, typer.Option("--against", metavar="ARTIFACT", help="The artifact with the baseline in it or next to it, or the baseline.")
    ],
    json: Json = False,
) -> None:
    """Check whether the data of a running model has drifted from the calibration data, and whether the layers of a packed model ran through
    the kernels that they should use; exit 1 if not so, for cron and CI.

    With fewer than 50 samples since the line before, drift is not judged, and the check passes.

    Example: mpq monitor check log.jsonl --against model.mpq.safetensors
    """
    from mpq.evidence.drift import FEWEST, alarms_of, compared_in, samples_of
    from mpq.records.baseline import read_baseline
    from mpq.records.monitor_log import kernels_line, read_last

    line, baseline = read_last(log), read_baseline(against)
    found, samples = alarms_of(line, baseline), samples_of(compared_in(line, baseline))
    judged = samples >= FEWEST
    if json:
        seen = {"judged": judged, "calls": line.calls, "sampled": line.sampled, "kernels": line.kernels}
        print_json({"passed": not found, **seen, "alarms": [vars(each) for each in found]})
    else:
        verdict = "nothing has drifted" if judged else f"too few to judge drift: {samples} samples, at least {FEWEST} are needed"
        passed = f"ok    {log}: {line.sampled:,} of {line.calls:,} calls seen, {verdict}; {kernels_line(line)}"
        print_lines([f"FAIL  {log}: {each.line}" for each in found] or [passed])
    if found:
        raise typer.Exit(1)
