"""What a command replaces: says so if its output file holds another plan, or the artifact of one. No torch."""

from __future__ import annotations

from pathlib import Path

from mpq.cli.console import say
from mpq.errors import MpqError
from mpq.records.file_kind import kind_of
from mpq.records.plan import Plan, assignment_of, read_plan
from mpq.shown import bits_text


def say_replaced(output: Path, plan: Plan) -> None:
    """Say what `output` holds, if that is something other than `plan` or its artifact; to be called before it is written."""
    if not output.exists():
        return
    try:
        held = {"plan": _plan_in, "artifact": _artifact_in, "sensitivity": _sensitivity_in}[kind_of(output)](output, plan)
    except MpqError:
        held = "is not a file that mpq can read"
    if held is not None:
        say(f"replaces {output}, which {held}; use --output to keep both")


def _plan_in(file: Path, plan: Plan) -> str | None:
    old = read_plan(file)
    if (old.assignment, old.model.get("sha256")) == (plan.assignment, plan.model.get("sha256")):
        return None
    budget = "" if old.budget is None else f" for {old.budget}"
    return f"held another plan{budget}: {_size(old.size.effective_bits, old.size.file_bytes)}"


def _artifact_in(file: Path, plan: Plan) -> str | None:
    from mpq.records.artifact_files import artifact_bytes, read_header
    from mpq.records.sensitivity import layer_bytes

    old = read_header(file)
    if (assignment_of(old.schemes, old.activations), old.model.get("sha256")) == (plan.assignment, plan.model.get("sha256")):
        return None
    bits = 8 * layer_bytes(old.layers, old.schemes) / sum(layer.weights for layer in old.layers)
    return f"held the artifact of another plan: {_size(bits, artifact_bytes(file))}"


def _sensitivity_in(file: Path, plan: Plan) -> str:
    from mpq.records.sensitivity import read_sensitivity

    read_sensitivity(file)
    return "held a sensitivity file"


def _size(bits: float, count: int) -> str:
    return f"{bits_text(bits)} bits per weight, {count:,} bytes"
