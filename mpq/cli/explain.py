"""`mpq explain`: why a layer has its scheme."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpq.cli import complete
from mpq.cli.console import figure, print_json, print_lines, print_table
from mpq.cli.find_sensitivity import analysis_of_plan
from mpq.cli.options import Json
from mpq.shown import bits_text

if TYPE_CHECKING:
    from mpq.records.plan import Plan
    from mpq.records.sensitivity import Sensitivity
    from mpq.search.explain import Alternative, Explanation


def command(
    plan: Annotated[Path, typer.Argument(help="The plan.")],
    layer: Annotated[str, typer.Argument(help="The layer's name.", autocompletion=complete.layer_of_plan)],
    sensitivity: Annotated[Path | None, typer.Option(metavar="FILE", help="[default: the analysis that the plan names]")] = None,
    cost: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A cost file of the search; shows what each alternative costs.")
    ] = None,
    json: Json = False,
) -> None:
    """Explain why a layer has its scheme, what the alternatives cost, and at which budget that would change.

    Example: mpq explain plan.yaml layer3.2.conv1
    """
    from mpq.records.plan import read_plan

    wanted = read_plan(plan)
    table = analysis_of_plan(plan, wanted, given=sensitivity)
    if json:
        from mpq.search.explain import explain

        print_json(_record(explain(wanted, layer, table=table, costs=cost or [])))
        return
    print_explanation(wanted, layer, table, cost or [])


def print_explanation(plan: Plan, layer: str, table: Sensitivity, costs: Sequence[Path | str]) -> None:
    """Print why `layer` has its scheme in `plan`; `costs` are cost files."""
    from mpq.search.explain import explain

    found = explain(plan, layer, table=table, costs=costs)
    beside = list(found.alternatives[0].beside) if found.alternatives else []
    heading = ["scheme", "bytes", *beside, f"{table.metric}", "net loss", "would be chosen if error"]
    print_table(heading, [_row(each) for each in found.alternatives])
    print_lines(["", *_reasons(found, plan)])


def _row(each: Alternative) -> list[str]:
    needed = "-" if each.chosen else "never at this size" if each.needed is None else f"below {figure(each.needed)}"
    name = f"{each.scheme} (chosen)" if each.chosen else str(each.scheme)
    beside = [f"{value:.6g}{' (over)' if limit in each.over else ''}" for limit, value in each.beside.items()]
    return [name, f"{each.bytes:,}", *beside, figure(each.error, each.stderr), "-" if each.chosen else f"{each.loss:+.3g}", needed]


def _reasons(found: Explanation, plan: Plan) -> list[str]:
    scheme = plan.layers[found.layer]
    lines = []
    if found.tied:
        lines.append(f"tied: shares its choice with {', '.join(found.tied)}; bytes and errors are for all of them together")
    better = min((each for each in found.alternatives if not each.chosen), key=lambda each: each.loss, default=None)
    if found.pinned:
        lines.append(f"{found.layer} is {scheme} because it is pinned")
    elif found.chosen is None:
        lines.append(f"{found.layer} is {scheme}, which was not measured: it was written by hand")
    elif better is None:
        lines.append(f"{found.layer} is {scheme}: no other scheme was measured")
    elif better.loss < 0:
        lines.append(
            f"{found.layer} is {scheme}, although {better.scheme} is better by {figure(-better.loss)} at the price per byte: "
            "sizes come in steps that do not fit exactly, or the plan was chosen by measuring it as a whole"
        )
    else:
        lines.append(f"{found.layer} is {scheme}: every other scheme loses more error than its bytes are worth")
    lines.append(f"price at this size: 1,000 bytes save {figure(1000 * found.price)}; net loss counts error and bytes at this price")
    for name, cost in plan.evidence.get("costs", {}).items():
        told = any(name in each.beside for each in found.alternatives)
        more = "(over): changing only this scheme would exceed the limit" if told else f"--cost FILE shows {name} of each scheme"
        lines.append(f"{name} is {cost['total']:.6g} of at most {cost['most']:g}; net loss prices bytes alone; {more}")
    for text, switch in (("smaller", found.smaller), ("larger", found.larger)):
        where = (
            f"becomes {switch.scheme} at {bits_text(switch.effective_bits)} bits ({switch.layer_bytes:,} bytes)"
            if switch
            else f"stays {scheme}"
        )
        lines.append(f"with a {text} budget it {where}")
    return lines


def _record(found: Explanation) -> dict[str, Any]:
    """The explanation as a JSON object; NaN and infinity become null."""
    switches = {
        name: None if switch is None else {**vars(switch), "scheme": str(switch.scheme)}
        for name, switch in (("smaller", found.smaller), ("larger", found.larger))
    }
    alternatives = [
        {**vars(each), "scheme": str(each.scheme), "stderr": each.stderr if each.stderr == each.stderr else None}
        for each in found.alternatives
    ]
    return {**vars(found), "tied": list(found.tied), "alternatives": alternatives, **switches}
