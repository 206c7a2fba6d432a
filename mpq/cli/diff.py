"""`mpq diff`: what changed between two plans."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpq.cli.console import figure, print_json, print_lines, print_table, say, warn
from mpq.cli.find_sensitivity import source_of_plan, table_beside
from mpq.cli.options import Json
from mpq.errors import UsageError
from mpq.shown import markdown, markdown_code

if TYPE_CHECKING:
    from mpq.records.diff import Change, LayerChange, PlanDiff


def command(
    old: Annotated[str, typer.Argument(help="A plan, or REVISION:PATH as git writes it, for example HEAD~1:plan.yaml.")],
    new: Annotated[Path, typer.Argument(help="The plan to compare with it.")] = Path("plan.yaml"),
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Shows what each layer contributes to the error. [default: the analysis that the new plan names]"
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    json: Json = False,
) -> None:
    """Show what changed between two plans: layers, bytes, predicted and measured error.

    Example: mpq diff HEAD:plan.yaml plan.yaml --markdown
    """
    from mpq.check.revision import read_plan_at
    from mpq.records.diff import diff_plans
    from mpq.records.plan import read_plan

    if markdown and json:
        raise UsageError("give either --markdown or --json, not both")
    after = read_plan(new)
    source = source_of_plan(new, after)
    table = table_beside(source, given=sensitivity)
    if table is None and after.analysis:
        warn(f"the errors of layers are not shown: {source.missing}")
    found = diff_plans(read_plan_at(old), after, table=table)
    if json:
        print_json({"old": old, "new": str(new), **found.to_dict()})
    elif markdown:
        sys.stdout.write(_markdown(found, old, str(new)))
    else:
        print_diff(found, old, str(new))


def print_diff(found: PlanDiff, old: str, new: str) -> None:
    """Print what changed between two plans of these names."""
    print_table(["", old, new, "change"], [[f.name, _number(f.before), _number(f.after), _difference(f)] for f in found.figures])
    if found.layers:
        print_lines([""])
        print_table(["layer", "old", "new", "bytes", "error"], [_row(change) for change in found.layers])
    print_lines(["", _count(found)])
    for note in found.notes:
        say(f"note: {note}")


def _markdown(found: PlanDiff, old: str, new: str) -> str:
    bits = found["bits per weight over the layers"]
    lines = [f"### {markdown_code(new)}: {_number(bits.before)} → {_number(bits.after)} bits per weight", ""]
    lines += ["| | old | new | change |", "|---|---:|---:|---:|"]
    lines += [f"| {f.name} | {_number(f.before)} | {_number(f.after)} | {_difference(f)} |" for f in found.figures]
    lines += ["", *(f"> {markdown(note)}" for note in found.notes), *([""] if found.notes else [])]
    if found.layers:
        lines += [f"<details{' open' if len(found.layers) <= 12 else ''}><summary>{_count(found)}</summary>", ""]
        lines += ["| layer | old | new | bytes | error |", "|---|---|---|---:|---:|"]
        for change in found.layers:
            name, *rest = _row(change)
            lines.append(f"| {markdown_code(name)} | {' | '.join(rest)} |")
        lines += ["", "</details>"]
    else:
        lines.append(_count(found))
    return "\n".join([*lines, "", f"<sub>{markdown_code(f'mpq diff {old} {new}')}</sub>", ""])


def _row(change: LayerChange) -> list[str]:
    schemes = [str(each) if each else "-" for each in (change.before, change.after)]
    return [change.layer, *schemes, f"{change.bytes:+,}", "-" if change.error is None else f"{change.error:+.3g}"]


def _count(found: PlanDiff) -> str:
    whole = len(found.layers) + found.unchanged
    return f"{len(found.layers)} of {whole} layers differ" if found.layers else f"no layer differs ({whole} compared)"


def _number(value: float | None) -> str:
    return f"{value:,}" if isinstance(value, int) else figure(value)


def _difference(change: Change) -> str:
    if change.difference is None:
        return "-"
    if not change.difference:
        return "0"
    text = f"{change.difference:+,}" if isinstance(change.difference, int) else f"{change.difference:+.4g}"
    return f"{text} ({change.difference / change.before:+.2%})" if change.before else text
