"""Prints what a search found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.cli.console import figure, print_table, say, warn
from mpq.records.finalist_names import TABLE_OPTIMUM
from mpq.records.unsearched import unsearched_line
from mpq.shown import bits_text

if TYPE_CHECKING:
    from mpq.records.sensitivity import Sensitivity
    from mpq.search.run import SearchResult


def print_result(result: SearchResult, table: Sensitivity, *, limited: bool) -> None:
    """Print the finalists, the decision and what is known about the plan.

    Args:
        result: of the search.
        table: the analysis.
        limited: whether a limit on the held-out error was asked for.
    """
    from mpq.search.result import finalist_cells

    if result.finalists:
        print_table(
            ["finalist", "bpw", "predicted", "calibration", "held-out"],
            [finalist_cells(row) for row in result.rows()],
            title=f"{table.metric} by finalist",
        )
    for note in result.notes:
        say(note)
    caution = table.header.data.get("caution")
    if caution is not None:
        warn(f"{'--max-error rests on the held-out samples of the analysis, and ' if limited else ''}{caution}")
    if (shift := table.header.data.get("shift")) is not None:
        warn(str(shift))
    say(f"chosen: {result.reason}")
    for line in _evidence_lines(result, table.metric):
        say(line)


def print_sizes(result: SearchResult, output: Path) -> None:
    """Print the sizes of the plan that was written."""
    size = result.plan.size
    say(f"wrote {output}: {bits_text(size.effective_bits)} bits per weight over the layers ({size.layer_bytes:,} bytes),")
    say(f"{bits_text(size.file_effective_bits)} over the file ({size.file_bytes:,} bytes)")
    say(unsearched_line(size.file_bytes, size.layer_bytes, dtype=result.plan.rest.dtype))


def _activation_lines(result: SearchResult, metric: str) -> list[str]:
    """How many tensors are integers, and what they cost."""
    facts, measured = result.plan.evidence.get("activations"), result.plan.evidence.get("measured", {})
    if facts is None:
        return []
    from mpq.records.activations import summary

    lines = [
        f"activations: {summary(result.plan.activations)}; {facts['share_of_work']:.0%} of the measured multiplications read integers, "
        f"predicted to add {figure(facts['predicted'])}"
    ]
    if "weights_alone" in facts:
        both = figure(measured["held_out"], measured["held_out_stderr"])
        lines.append(f"{metric} on held-out samples: {figure(facts['weights_alone'])} with weights alone, {both} with activations")
    return lines


def _evidence_lines(result: SearchResult, metric: str) -> list[str]:
    evidence, lines = result.plan.evidence, list[str]()
    gap, measured = evidence.get("optimality_gap"), evidence.get("measured")
    if gap is not None:
        proof = "proven to have the least predicted error" if gap == 0 else f"within {gap:.2%} of the least predicted error"
        lines.append(f"{TABLE_OPTIMUM}: {proof}; {result.measurements} plans measured")
    elif measured is not None:
        held_out = figure(measured["held_out"], measured["held_out_stderr"])
        lines.append(f"{metric}: {held_out} on held-out samples, measured on the model")
    added = evidence.get("unseen_rows")
    if evidence.get("reach"):
        lines.append(str(evidence["reach"]))
    if added:
        lines.append(f"unseen rows add {figure(added)} to the predicted {figure(evidence['predicted'])}")
    lines += _activation_lines(result, metric)
    rest = evidence.get("rest")
    if rest is not None:
        cost = figure(rest["held_out"], rest["held_out_stderr"])
        lines.append(f"unquantized tensors in {rest['dtype']}: alone they cost {metric} {cost} on held-out samples")
    lines += [f"{name}: {cost['total']:.6g} of at most {cost['most']:g}" for name, cost in evidence.get("costs", {}).items()]
    asked = evidence.get("asked", [])
    limits: Sequence[Mapping[str, Any]] = asked if isinstance(asked, list) else [asked]
    return [*lines, *(f"{limit['name']}: {figure(limit['value'])} of at most {limit['most']:g}" for limit in limits)]
