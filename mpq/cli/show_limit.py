"""`mpq show --limit`: how far each layer of a plan is from the theoretical limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpq.cli.console import SHOWN_NAMES, print_json, print_lines, print_table, progress
from mpq.cli.find_inputs import reopen_data, reopen_model
from mpq.cli.options import cache_folder
from mpq.errors import UsageError
from mpq.shown import bits_cell, by_reason, listed

if TYPE_CHECKING:
    from mpq.records.rate_limits import LayerLimit


def show_limit(
    file: Path, kind: str, *, model: Path | None, cache: str | None, device: str | None, factory: str | None, trust: bool, json: bool
) -> None:
    """Print the limit of each layer of a plan, and of all of them."""
    if kind != "plan":
        raise UsageError(f"{file} is not a plan, which --limit needs: run `mpq search`, then name what it wrote")

    from mpq.apply.rate_limits import rate_limits
    from mpq.records.plan import read_plan

    plan = read_plan(file)
    if not plan.data:
        raise UsageError(f"{file} was made without calibration data, which --limit needs: analyze and search again with --calib FILE")
    loaded = reopen_model(plan.model, file, given=model, factory=factory, trust=trust, device=device)
    data = reopen_data(plan.data, file, loaded, trust=trust)
    with progress("limit") as advance:
        limits = rate_limits(loaded, plan, data, cache=cache_folder(cache, file), on_progress=advance)
    if json:
        print_json({"file": str(file), "kind": kind, "assignment": plan.assignment, "layers": [_row(each) for each in limits]})
        return
    _print(limits, {name: str(scheme) for name, scheme in plan.layers.items()})


def _row(limit: LayerLimit) -> dict[str, object]:
    known = {"limit_bits": limit.least, "gap_bits": limit.gap}
    return {"layer": limit.layer, "effective_bits": limit.bits, **known, **({"reason": limit.reason} if limit.reason else {})}


def _print(limits: list[LayerLimit], schemes: dict[str, str]) -> None:
    from mpq.records.rate_limits import total_limit

    total = total_limit(limits)
    rows = [*limits, *([] if total is None else [total])]
    print_table(
        ["layer", "scheme", "bpw", "limit", "gap"],
        [[each.layer, schemes.get(each.layer, ""), bits_cell(each.bits), _shown(each.least), _shown(each.gap)] for each in rows],
    )
    reasons = by_reason({each.layer: each.reason for each in limits if each.reason})
    print_lines([f"no limit for {listed(names, SHOWN_NAMES)}: {reason}" for reason, names in reasons.items()])
    print_lines(
        [
            "limit: if the weights were normally distributed, no code could reach the layer's output error on the calibration data "
            "with fewer bits per weight"
        ]
    )
    below = [each.layer for each in limits if each.gap is not None and each.gap < 0]
    if below:
        print_lines([f"below the limit, as weights that are not normally distributed can be: {listed(below, SHOWN_NAMES)}"])


def _shown(bits: float | None) -> str:
    return "-" if bits is None else bits_cell(bits)
