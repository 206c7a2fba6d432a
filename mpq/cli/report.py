"""`mpq report`: one HTML file to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mpq.cli.console import print_json, print_lines, say, warn
from mpq.cli.find_inputs import check_output, stem_of
from mpq.cli.find_sensitivity import source_of_artifact, source_of_plan, table_beside
from mpq.cli.options import Json
from mpq.distribution import requirement
from mpq.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from mpq.records.artifact import ArtifactHeader
    from mpq.records.plan import Plan
    from mpq.records.sensitivity import Sensitivity
    from mpq.report.report_input import Subject

T = TypeVar("T")


def command(
    file: Annotated[
        Path, typer.Argument(help="A sensitivity file, a plan, an artifact, or the log of a monitor; or the earlier of two plans.")
    ] = Path("plan.yaml"),
    new: Annotated[Path | None, typer.Argument(help="The plan to report, compared with the first one.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="[default: FILE.report.html next to the file]")] = None,
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The sensitivity file of a plan or artifact. [default: the one that the plan names, or the only one that fits]",
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The output of `mpq eval --json` for the artifact. [default: *.evaluation.json next to the file, if it matches]",
        ),
    ] = None,
    limit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The output of `mpq show --limit --json` for the plan: how far each layer is from the theoretical limit. [default: "
            "*.limit.json next to the file, if it matches]",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="ARTIFACT",
            help="The baseline of a log, or the artifact with the baseline next to it. [default: the only baseline next to the log]",
        ),
    ] = None,
    png: Annotated[
        bool, typer.Option("--png", help=f"Also write the main plots as PNG next to the HTML; needs {requirement('png')}.")
    ] = False,
    json: Json = False,
) -> None:
    """Write one HTML file that shows which layers are sensitive, what the next bytes would buy, and what a plan does. It needs no network.

    A plan is shown with the analysis that it names, an artifact with the matching one in its folder.

    With two plans, the page is about the second one and says what changed since the first.

    The page of a monitor's log shows what has drifted and since when.

    Example: mpq report plan.yaml
    """
    from mpq.files import write_text
    from mpq.records.monitor_log import is_monitor_log
    from mpq.report.render import render

    if is_monitor_log(file):
        if new or sensitivity or evaluation or limit or png:
            raise UsageError(f"{file} is the log of a monitor: give only --against, --output and --json with it")
        _report_log(file, against, output, json=json)
        return
    if against is not None:
        raise UsageError(f"--against applies only to a monitor's log, and {file} is not one: leave it out")
    shown = new or file
    subject = _with_limits(_with_evaluation(subject_of(shown, sensitivity), shown, evaluation), shown, limit)
    if new is not None:
        subject = replace(subject, other=(file.name if file.name != new.name else str(file), _plan(file)))
        if subject.plan is None:
            raise UsageError(f"{new} is not a plan: a report compares two plans, for example mpq report old.yaml plan.yaml")
    target = output or shown.with_name(f"{stem_of(shown)}.report.html")
    check_output(target, inputs=(file, new, evaluation, limit, None if subject.table is None else subject.table.path))
    write_text(target, render(subject))
    pictures: list[Path] = []
    if png:
        from mpq.report.png import write_pictures

        pictures = write_pictures(subject, target)
    _say_written(target, pictures, json=json)


def _report_log(log: Path, against: Path | None, output: Path | None, *, json: bool) -> None:
    from mpq.files import write_text
    from mpq.records.baseline import baseline_beside, read_baseline
    from mpq.records.monitor_log import read_lines
    from mpq.report.watched import render_log

    target = output or log.with_name(f"{log.stem}.report.html")
    known = against or baseline_beside(log)
    check_output(target, inputs=(log, known))
    write_text(target, render_log(log.name, list(read_lines(log)), read_baseline(known)))
    _say_written(target, [], json=json)


def _say_written(target: Path, pictures: list[Path], *, json: bool) -> None:
    if json:
        print_json({"output": str(target), "bytes": target.stat().st_size, "pictures": [str(path) for path in pictures]})
        return
    print_lines([f"{path}: {path.stat().st_size:,} bytes" for path in (target, *pictures)])
    say("open it in a browser; it loads nothing from anywhere")


def _plan(file: Path) -> Plan:
    from mpq.records.file_kind import kind_of
    from mpq.records.plan import read_plan

    if kind_of(file) != "plan":
        raise UsageError(f"{file} is not a plan: a report compares two plans, for example mpq report old.yaml plan.yaml")
    return read_plan(file)


def _with_evaluation(subject: Subject, file: Path, given: Path | None) -> Subject:
    """The subject with the results of `mpq eval` for its schemes, if known."""
    from mpq.records.evaluation_file import evaluation_beside, read_evaluation

    if not subject.schemes:
        if given is not None:
            raise UsageError(f"{file} has no schemes that {given} could belong to: name a plan or an artifact")
        return subject
    again = "`mpq eval` on its artifact"
    return replace(subject, evaluation=_for_schemes(subject, file, given, evaluation_beside, read_evaluation, again))


def _with_limits(subject: Subject, file: Path, given: Path | None) -> Subject:
    """The subject with the limits of its layers, if known."""
    from mpq.records.rate_limits import limits_beside, read_limits

    if subject.plan is None:
        if given is not None:
            raise UsageError(f"{given} gives limits of a plan, and {file} is not a plan: name the plan")
        return subject
    again = f"`mpq show {file} --limit --json`"
    return replace(subject, limits=_for_schemes(subject, file, given, limits_beside, read_limits, again) or {})


def _for_schemes(
    subject: Subject,
    file: Path,
    given: Path | None,
    beside: Callable[[Path, str], T | None],
    read: Callable[[Path], tuple[str, T]],
    again: str,
) -> T | None:
    """What a file says about the schemes of a subject: the given one, which must be for them, or one next to `file`."""
    from mpq.records.plan import assignment_of

    own = assignment_of(subject.schemes, subject.activations)
    if given is None:
        return beside(file.parent, own)
    assignment, found = read(given)
    if assignment != own:
        raise MismatchError(f"{given} was made for other schemes than those of {file}: run {again} again")
    return found


def subject_of(file: Path, sensitivity: Path | None) -> Subject:
    """The subject of a report on a file, with the analysis next to it or the given one."""
    from mpq.records.artifact import read_artifact_header
    from mpq.records.file_kind import kind_of
    from mpq.records.latency import ENDING
    from mpq.records.plan import read_plan
    from mpq.records.recovery_lines import recovery_lines_of
    from mpq.records.sensitivity import read_sensitivity
    from mpq.report.report_input import Subject
    from mpq.search.frontier import frontier
    from mpq.search.time_frontier import time_frontier

    kind = kind_of(file)
    given: dict[str, Any] = {"source": file.name}
    table: Sensitivity | None = None
    if kind == "sensitivity":
        table = read_sensitivity(file)
    elif kind == "artifact":
        header = read_artifact_header(file)
        source = source_of_artifact(file, header)
        table = table_beside(source, given=sensitivity)
        given |= {"artifact": header, "artifact_bytes": file.stat().st_size}
    else:
        wanted = read_plan(file)
        source = source_of_plan(file, wanted)
        table = table_beside(source, given=sensitivity)
        given |= {"plan": wanted, "training": recovery_lines_of(file.parent, wanted.evidence.get("recovery"))}
    plan = given.get("plan") or _plan_of(given.get("artifact"), table)
    if table is None:
        warn(f"the report has no frontier and no heat map: {source.missing}")
    complete = table is not None and not table.missing
    if table is None or not complete:
        return Subject(**given, table=table)
    profiles = [time_frontier(table, path, plan) for path in sorted(file.parent.glob(f"*{ENDING}"))]
    return Subject(**given, table=table, frontier=frontier(table, plan), times=tuple(each for each in profiles if each is not None))


def _plan_of(header: ArtifactHeader | None, table: Sensitivity | None) -> Plan | None:
    """The plan that an artifact was made from, as far as the frontier needs it."""
    from mpq.records.plan import plan_for
    from mpq.search.rest import stored_as

    if header is None or table is None:
        return None
    rest = stored_as(table, header.rest_dtype).header.rest
    return plan_for(header.layers, header.schemes, model=header.model, quantizer=header.quantizer, rest=rest)
