"""`mpq monitor recalibrate`: the loop from a drifted log to a new plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import print_json, say, voice
from mpq.cli.diff import print_diff
from mpq.cli.find_inputs import check_output, how_read, named_inputs, read_data, reopen_data, reopen_model, stem_of
from mpq.cli.find_sensitivity import analysis_of_plan
from mpq.cli.options import Factory, Json, Trust
from mpq.config import data_settings


def command(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The log of a monitor with keep=; its samples are next to it.")],
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="The plan of the running model.")] = Path("plan.yaml"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The new plan. [default: NAME.recalibrated.yaml next to the plan]")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=0, help="Plans to measure; 0 uses the new analysis only. [default: 64]")] = None,
    reference: Annotated[Path | None, typer.Option("--reference", metavar="MODEL", help="The unquantized model, if it has moved.")] = None,
    sensitivity: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The analysis of the plan. [default: the one that the plan names]")
    ] = None,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Add the samples that a monitor kept to the calibration data, analyze again, search the plan's budget again, and show what changes.

    It writes the joined data, the new analysis and the new plan, all called NAME.recalibrated. Labels are left out.

    Example: mpq monitor recalibrate log.jsonl plan.yaml
    """
    from mpq.monitor.recalibrate import kept_samples, recalibrate, write_joined
    from mpq.records.diff import diff_plans
    from mpq.records.monitor_log import samples_path
    from mpq.records.plan import read_plan, write_plan

    kept, before = kept_samples(log), read_plan(plan)
    table = analysis_of_plan(plan, before, given=sensitivity)
    assert table.path is not None
    stem = stem_of(table.path)
    joined, analysis = (table.path.with_name(f"{stem}.recalibrated{ending}") for ending in (".pt", ".sensitivity.jsonl"))
    target = output or plan.with_name(f"{plan.stem}.recalibrated{plan.suffix}")
    for path in (joined, analysis, target):
        named = named_inputs(table.header.model, table.header.data, table.path)
        check_output(path, inputs=(log, samples_path(log), plan, table.path, reference, *named))
    model = reopen_model(table.header.model, table.path, given=reference, factory=factory, trust=trust)
    write_joined(model.module, reopen_data(table.header.data, table.path, model, trust=trust), kept, joined)
    settings = replace(data_settings(table.header.data), seq_len=None, num_samples=None, batch_size=None, text_field=None)
    data = read_data(str(joined), model, settings)
    say(f"data: {data.description}, {len(kept):,} calls of them from {log.name}")
    reading = how_read(str(joined), settings, analysis)
    found = recalibrate(model, data, table, before, output=analysis, reading=reading, trials=trials, progress=not voice.quiet)
    write_plan(found.plan, target)
    changes = diff_plans(before, found.plan)
    if json:
        print_json({"plan": str(target), "analysis": str(analysis), "data": str(joined), "samples": len(kept), **changes.to_dict()})
    else:
        print_diff(changes, str(plan), str(target))
        say(f"note: errors of {target.name} include the new samples, those of {plan.name} do not")
